"""Write docs/run.md, a run in figures, with figures/run/*.svg: python docs/run_page.py RUN.

Sentences and figures are those of the run's report; this page has the first ones of every part.
"""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refusal import svg
from refusal.findings import read_findings
from refusal.records import read_json, write_text
from refusal.report.content import page_values
from refusal.report.picture import Picture, pictures
from refusal.results import table_rows

FOLDER = Path(__file__).resolve().parent
FIGURES = FOLDER / "figures" / "run"
MOST = 2  # figures of one part
SHORT = 100  # characters of a sentence that is no paragraph of its own
INTRODUCTION = """# A run in figures

Written by `docs/run_page.py` from the records of one `refusal run` on the bundled chat model, whose harm is
make-believe. The report of a run (`report.html`) has all of it, with every number under its figure, tests, answers side
by side and where it comes from."""


def main(run: str) -> None:
    """Write the page and its figures anew."""
    shutil.rmtree(FIGURES, ignore_errors=True)
    values = page_values(read_findings(Path(run)))
    first = [pictures(table)[0] for table in values["tables"]]
    parts = [INTRODUCTION, _block("What was found", [*values["headline"], *values["chosen"]], first)]
    parts.append(f"## The table that the command prints\n\n{_table(table_rows(read_json(Path(run) / 'results.json')))}")
    parts.append(_block("Every candidate", [values["candidates"]["said"]], pictures(values["candidates"])))
    for name, title in (("projections", "Where the sets part"), ("coefficients", "How much to add")):
        parts.append(_block(title, [], pictures(values[name])))
    for suffix in values["suffixes"]:
        said = [suffix["said"], *(suffix[part]["said"] for part in ("cosines", "wrote", "looked"))]
        parts.append(_block(f"The suffix “{suffix['suffix']}”", said, pictures(suffix)))
    for section in values["sections"]:
        if "reason" not in section:
            parts.append(_block(section["title"], section["said"], pictures(section["figures"])))
    write_text(FOLDER / "run.md", "\n\n".join(parts) + "\n")


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    cells = (
        tuple(re.sub("(?<=[,=]) | (?==)", "\N{NO-BREAK SPACE}", _plain(cell)) for cell in row.values()) for row in rows
    )
    lines = [tuple(rows[0]), ("---",) * len(rows[0]), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _block(title: str, said: Sequence[str], drawn: Sequence[Picture]) -> str:
    shown = drawn[:MOST]
    for one in shown:
        write_text(FIGURES / f"{one.name}.svg", svg.stand_alone(one.svg, one.key, schemes=True))
    images = "\n\n".join(f"![{_plain(one.title)}](figures/run/{one.name}.svg)" for one in shown)
    return "\n\n".join(filter(None, (f"## {_plain(title)}", *map(_plain, _paragraphs(said)), images)))


def _paragraphs(said: Sequence[str]) -> list[str]:
    """Return sentences as paragraphs: a short one goes on in the paragraph before it."""
    made: list[str] = []
    for sentence in map(str, said):
        if made and len(sentence) < SHORT:
            made[-1] += f" {sentence}"
        else:
            made.append(sentence)
    return made


def _plain(text: Any) -> str:
    return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", str(text))


if __name__ == "__main__":
    main(sys.argv[1])
