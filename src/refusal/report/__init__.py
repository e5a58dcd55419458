"""Records → one self-contained HTML file: what a person reads of a run, or of several. No torch, all offline."""

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from refusal import svg
from refusal.errors import BadSetting
from refusal.findings import Findings, read_findings
from refusal.records import write_bytes, write_text
from refusal.report.compare import comparison_values
from refusal.report.content import page_values
from refusal.report.pdf import as_pdf
from refusal.report.picture import pictures
from refusal.report.text import visible

HERE = Path(__file__).parent


def report_files(folders: Sequence[Path], *, out: Path | None, figures: Path | None, pdf: bool = False) -> list[Path]:
    """Write what `refusal report` is asked for, the page of one run or of several or their figures: the paths."""
    if not folders:
        raise BadSetting("There is no run to report on. Give a run folder, or several to compare.")
    if pdf and figures is None:
        raise BadSetting("PDF is for figures: say with --figures DIR where they go. A page becomes a PDF when printed.")
    if out is not None and figures is not None:
        raise BadSetting(f"--out is for a page ('{out}'), --figures for figures ('{figures}'). Give one of the two.")
    if figures is not None:
        return write_figures(folders, figures, pdf=pdf)
    if len(folders) == 1:
        return [write_report(folders[0], out=out)]
    return [write_comparison(folders, out or Path("comparison.html"))]


def write_report(folder: Path, *, out: Path | None = None) -> Path:
    """Write the page of a run folder, `report.html` in it, from its records, and return its path.

    Raises BadRunFolder for missing or broken records, and the errors of `records.write_bytes`.
    """
    path = out or folder / "report.html"
    write_text(path, render_report(folder))
    return path


def render_report(folder: Path) -> str:
    """Return the page of a run folder. The same records give the same text; what the run lacks, the page says.

    Raises BadRunFolder for missing or broken records.
    """
    return _render("page.html", page_values(read_findings(folder)))


def render_measured(findings: Findings) -> str:
    """Return what the page says of a run's numbers, from its headline to its judges, as markup for another page.

    It brings its own style, which reaches no further than itself; the figures need `svg.STYLE`.
    """
    sections = _templates().get_template("measured.html").render(**page_values(findings), words_there=False)
    style = (HERE / "page.css").read_text(encoding="utf-8")
    return f'<style>.report {{\n{style}\n}}</style><div class="report">{sections}</div>'


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write one page that holds several runs, of one model or of several, beside each other, and return its path.

    Raises BadRunFolder for missing or broken records, BadSetting for less than two runs.
    """
    if len(folders) < 2:
        raise BadSetting(f"{len(folders)} runs cannot be compared. Give two or more run folders.")
    write_text(path, _render("compare.html", comparison_values([read_findings(folder) for folder in folders])))
    return path


def write_figures(folders: Sequence[Path], out: Path, *, pdf: bool = False) -> list[Path]:
    """Write every figure of a run's page, or of the page that compares several, as SVG with its numbers as CSV.

    Figures are in the light scheme, each with its key, and named after their titles; with `pdf` there is a PDF of each,
    too. Raises BadRunFolder for missing or broken records, Unavailable for PDF without typst.
    """
    found = [read_findings(folder) for folder in folders]
    values = page_values(found[0]) if len(found) == 1 else comparison_values(found)
    written = []
    for one in pictures(values):
        files = {"svg": one.alone.encode(), "csv": one.csv.encode()} | ({"pdf": as_pdf(one.alone)} if pdf else {})
        for suffix, content in files.items():
            written.append(out / f"{one.name}.{suffix}")
            write_bytes(written[-1], content)
    return written


def _render(template: str, values: dict[str, Any]) -> str:
    script = (HERE / "page.js").read_text(encoding="utf-8")
    # Of all scripts that may stand in the page the browser runs this one alone, whatever model text holds.
    digest = b64encode(sha256(script.encode()).digest()).decode()
    frame = {"figure_style": svg.STYLE, "script": script, "script_hash": f"sha256-{digest}"}
    return _templates().get_template(template).render(**values, **frame)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["shown"] = visible
    return made
