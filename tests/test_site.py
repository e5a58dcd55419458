"""The documentation's site: every page is in its navigation, every public name on one, every link leads somewhere."""

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from html import unescape
from pathlib import Path

import pytest
import yaml

import refusal

mechanism = pytest.importorskip("refusal.mechanism")  # the site has a page of it
ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site" / "pages.py")
assert SPEC
assert SPEC.loader
site = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(site)
WRITTEN = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in site.PAGES)])


def navigation() -> list[str]:
    """The pages that mkdocs.yml lists."""
    return re.findall(r"^ +- [^:\n]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_navigation_lists_every_page_once():
    there = {path.name for path in (ROOT / "docs").glob("*.md")} | site.pages().keys()
    assert Counter(navigation()) == Counter(there)


def test_the_site_fetches_nothing():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in text
    assert "://" not in re.sub(r"#.*", "", text)
    settings = yaml.safe_load(text)
    assert all((ROOT / "docs" / path).is_file() for path in (*settings["extra"]["polyfills"], *settings["extra_css"]))


def test_the_page_of_public_names_has_all_of_them():
    assert site.homes() == refusal._HOMES
    found = re.findall(r"^::: refusal\.(\S+)\.(\w+)$", site.api_page(), re.MULTILINE)
    assert Counter(name for _, name in found) == Counter(refusal.__all__)
    assert {name: home for home, name in found} == refusal._HOMES


def test_the_page_of_the_analyses_has_all_of_them():
    found = re.findall(r"^::: (refusal\.mechanism\.\w+)\.(\w+)$", site.mechanism_page(), re.MULTILINE)
    measures = {name for name in mechanism.__all__ if name.startswith(("measure", "study", "find"))}
    assert measures <= {name for _, name in found}
    assert {getattr(mechanism, name).__module__ for _, name in found} == {home for home, _ in found}


@pytest.mark.parametrize(
    ("source", "markdown", "pointed"),
    [
        (
            "README.md",
            "[a](docs/files.md#run-json) and [b](CHANGELOG.md)",
            "[a](files.md#run-json) and [b](changelog.md)",
        ),
        ("README.md", "![x](docs/figures/demo.svg)", "![x](figures/demo.svg)"),
        ("README.md", "[n](examples/02-your-own-behaviour.ipynb)", "[n](notebooks/02-your-own-behaviour.md)"),
        (
            "docs/reproduce.md",
            "[paper.toml](../src/refusal/recipes/paper.toml), [r](../README.md)",
            "paper.toml, [r](index.md)",
        ),
        (
            "examples/01-the-paper-in-ten-minutes.ipynb",
            "[next](02-your-own-behaviour.ipynb)",
            "[next](02-your-own-behaviour.md)",
        ),
        ("docs/method.md", "[w](https://example.org/a.md) [h](#here)", "[w](https://example.org/a.md) [h](#here)"),
    ],
)
def test_links_are_pointed_at_the_site(source, markdown, pointed):
    assert site.linked(markdown, source) == pointed


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(path):
    links = [match["target"] for match in site.LINK.finditer(path.read_text(encoding="utf-8"))]
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_the_help_of_every_command_is_laid_out_whole():
    helps = site.HELP.findall((ROOT / "docs" / "cli.md").read_text(encoding="utf-8"))
    assert len(helps) > 20
    for text in helps:
        shown = re.sub(r"</?(?:p|div|dl|dt|dd|strong|code)(?: class=\"\w+\")?>", " ", site.help_list(text))
        assert unescape(shown).lower().split() == re.sub(r"usage: |-{4,}|`", " ", text).lower().split()
    entry = "<dl><dt><code>--n INT</code></dt><dd>How &lt;many&gt;. (<code>3</code>)</dd></dl>"
    assert site.help_list("  --n INT   How <many>.\n          (`3`)") == f'<div class="help">{entry}</div>'


def rows(page: str) -> list[list[str]]:
    """The rows of a page's tables, of rates alone."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ").replace("\\", "")
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return [row for row in found if len(row) == 4 and row[0] in ("harmful", "harmless")]


def test_the_table_of_the_readme_is_part_of_the_run_in_figures():
    every, some = rows("docs/run.md"), rows("README.md")
    assert len(some) == 7
    named = [[name, re.sub(r"\*\*(.+)\*\*: .*", r"\1", kind), *rest] for name, kind, *rest in some]
    assert [row for row in named if row not in every] == []
    words = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"seven of its {len(every)} rows" in words.replace("\n", " ")


def test_a_notebooks_page_has_its_outputs_and_text_is_text(tmp_path):
    path = next((ROOT / "examples").glob("01*.ipynb"))
    shown = site.outputs(path)
    assert site.notebook(path).count("data-output=") == len(shown) > 10
    odd = tmp_path / "x.ipynb"
    odd.write_text(
        '{"cells": [{"cell_type": "code", "source": "1", "outputs": [{"output_type": "stream", "text": "<b>"}]}]}'
    )
    assert site.outputs(odd) == ['<div class="output"><pre>&lt;b&gt;</pre></div>']


@pytest.mark.skipif(
    not importlib.util.find_spec("mkdocs"), reason="mkdocs is not installed: pip install 'refusal[docs]'"
)
def test_the_site_is_built_without_a_warning(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    assert len(pages) == len(navigation()) + 1  # and 404
    fetched = [
        url
        for page in pages
        for url in re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:[^"]+)', page)
    ]
    assert fetched == []
    shown = unescape(re.sub(r"<[^>]+>", "", (tmp_path / "api.html").read_text(encoding="utf-8")))
    assert 'Float[Tensor, "p l d"]' in shown  # signatures say their shapes
