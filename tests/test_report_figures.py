"""The figures of a page as files: SVG, their numbers as CSV, and PDF, from the command line."""

import csv
import sys
from xml.etree import ElementTree

import pytest
from pypdf import PdfReader

import run_folder
from refusal.cli import main
from refusal.findings import read_findings
from refusal.report.content import page_values
from refusal.report.picture import pictures


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_folder.build(tmp_path_factory.mktemp("run"))


def test_every_figure_becomes_a_drawing_with_its_numbers(run, tmp_path, capsys):
    out = tmp_path / "new"
    main(["report", str(run), "--figures", str(out)])
    wanted = pictures(page_values(read_findings(run)))
    assert len({one.name for one in wanted}) == len(wanted) > 5
    assert capsys.readouterr().out == f"{len(wanted)} figures, {2 * len(wanted)} files: {out}\n"
    for one in wanted:
        drawn = ElementTree.parse(out / f"{one.name}.svg").getroot()
        assert drawn.get("aria-label") == one.title
        rows = [*csv.reader((out / f"{one.name}.csv").read_text(encoding="utf-8").splitlines())]
        assert len(rows) == 1 + len(one.rows)
    assert {path.suffix for path in out.iterdir()} == {".svg", ".csv"}


def test_with_pdf_each_is_a_page_of_its_own_size_whose_words_can_be_searched(run, tmp_path, capsys):
    main(["report", str(run), "--figures", str(tmp_path / "a"), "--pdf"])
    main(["report", str(run), "--figures", str(tmp_path / "b"), "--pdf"])
    files = sorted((tmp_path / "a").glob("*.pdf"))
    assert {file.stem for file in files} == {file.stem for file in (tmp_path / "a").glob("*.svg")} != set()
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
        (page,) = PdfReader(file).pages
        drawn = ElementTree.parse(file.with_suffix(".svg")).getroot()
        size = [float(drawn.get(side, 0)) * 0.75 for side in ("width", "height")]  # pixels as points
        assert [*map(float, page.mediabox[2:])] == pytest.approx(size, abs=0.01)
        assert drawn.get("aria-label", "").split()[0] in page.extract_text()


def test_without_the_package_the_remedy_is_named_and_nothing_written(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(SystemExit, match="1"):
        main(["report", str(run), "--figures", str(tmp_path / "new"), "--pdf"])
    assert 'pip install "refusal[figures]"' in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("flags", [["--pdf"], ["--out", "page.html", "--figures", "drawn"]])
def test_flags_that_do_not_go_together_are_refused(run, capsys, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        main(["report", str(run), *flags])
    assert "--figures" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
