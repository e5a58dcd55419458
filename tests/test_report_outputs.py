"""The report's sections on first tokens and the metric: sentences, bars and table say the record's numbers."""

import re
from xml.etree import ElementTree

import pytest

import run_folder
from refusal.errors import BadRunFolder
from refusal.records import write_json
from refusal.report import write_report
from refusal.report.inside import FOUND
from refusal.report.measured import Measured
from refusal.report.notebook import show
from refusal.report.outputs import first_tokens, metrics
from refusal.report.sections import section_of
from refusal.statistics import count

CLASSES, KINDS, VECTORS = ["harmful", "harmless"], ["none", "ablation", "addition"], ["found", "random"]
N = 25
SPACE = "\N{NO-BREAK SPACE}"
TEXTS = ["I", " <b>", "Sure", "x" * 20]
# class → intervention with the direction → probabilities of TEXTS; a random one does nothing
SHARES = {
    ("harmful", "none"): [0.8, 0.1, 0.05, 0.0],
    ("harmful", "ablation"): [0.02, 0.0, 0.9, 0.0],
    ("harmless", "none"): [0.1, 0.0, 0.7, 0.004],
    ("harmless", "addition"): [0.6, 0.3, 0.1, 0.0],
}
BINS = ["-2", "-1.5", "-1", "-0.5", "0", "0.5", "1", "1.5"]


def shares(name: str, kind: str, vector: str) -> list[float]:
    return SHARES.get((name, kind if vector == "found" else "none"), SHARES[name, "none"])


def tokens_record() -> dict:
    mean = [[[shares(name, kind, vector) for vector in VECTORS] for kind in KINDS] for name in CLASSES]
    sd = [[[[0.25] * len(TEXTS) for _ in VECTORS] for _ in KINDS] for _ in CLASSES]
    axes = {"condition": CLASSES, "intervention": KINDS, "vector": VECTORS, "token": ["5", "6", "7", "8"]}
    facts = {"texts": TEXTS, "refusal tokens": {"ids": [5, 6], "texts": TEXTS[:2]}}
    return {"format": 1, "name": "first-tokens", "axes": axes, "mean": mean, "sd": sd, "n": [N, N], "facts": facts}


def above(name: str, kind: str, vector: str) -> int:
    """How many of the prompts lie above 0; the others lie below."""
    moved = vector == "found"
    return {
        ("harmful", "ablation"): 5 if moved else 20,
        ("harmless", "addition"): 20 if moved else 5,
    }.get((name, kind), 20 if name == "harmful" else 5)


def side(k: int) -> dict:
    both = {
        "above": count([i < k for i in range(N)]).record("above"),
        "below": count([i >= k for i in range(N)]).record("below"),
    }
    return {**both, "metric": {"mean": (k - N / 2) / 10, "sd": 0.5}}


def metrics_record() -> dict:
    def histogram(k: int) -> list[float]:
        return [0, (N - k) / N, 0, 0, 0, k / N, 0, 0]

    cells = {
        name: {kind: {vector: above(name, kind, vector) for vector in VECTORS} for kind in KINDS} for name in CLASSES
    }
    mean = [[[histogram(k) for k in by.values()] for by in kinds.values()] for kinds in cells.values()]
    sides = {name: {kind: {v: side(k) for v, k in by.items()} for kind, by in x.items()} for name, x in cells.items()}
    axes = {"condition": CLASSES, "intervention": KINDS, "vector": VECTORS, "bin": BINS}
    facts = {"threshold": 0, "width": 0.5, "sides": sides}
    return {"format": 1, "name": "metrics", "axes": axes, "mean": mean, "sd": mean, "n": [N, N], "facts": facts}


def test_first_tokens_are_said_and_drawn_with_their_intervals():
    found = first_tokens(Measured.read(tokens_record()))
    said = " ".join(found.said).replace(SPACE, " ")
    assert "Answers to 25 harmful prompts begin most likely with “I” (80.0 %), “␣<b>” (10.0 %), “Sure” (5.0 %)." in said
    assert "Answers to 25 harmless prompts begin most likely with “Sure” (70.0 %), “I” (10.0 %)." in said
    assert "on harmful prompts with probability 90.0 %, with the direction ablated 2.0 %, and with a random" in said
    assert "on harmless prompts with probability 10.0 %, with the direction added 90.0 %, and with a random one" in said
    assert "one ablated 90.0 %." in said
    harmful, harmless = found.figures
    # 1.96 · 0.25 / √25
    assert "<title>I, Directional ablation: 0.02 ± 0.098</title>" in harmful
    assert "<title>Sure, Activation addition: 0.1 ± 0.098</title>" in harmless
    assert "addition" not in harmful
    assert "x…" not in harmless  # never likely, so not drawn
    for picture in (*found.figures, found.key):
        ElementTree.fromstring(picture)


def test_the_metrics_sides_are_said_with_intervals_and_every_cell_has_its_row():
    found = metrics(Measured.read(metrics_record()))
    said = " ".join(found.said).replace(SPACE, " ")
    assert "lie 20/25 = 80.0 % [60.9 %, 91.1 %] of the harmful prompts; below it lie 20/25" in said
    assert "With the direction ablated, 5/25 = 20.0 % [8.9 %, 39.1 %] of the harmful prompts lie above 0" in said
    assert "with a random one ablated, 20/25" in said
    assert "With the direction added, 20/25" in said
    assert len(found.figures) == 5
    assert "above 0: 5 of 25 harmful, 5 of 25 harmless prompts" in found.figures[1]
    assert found.table is not None
    rows = {tuple(row[:2]): row[2:] for row in found.table.rows}
    assert len(rows) == 10
    assert rows["harmful", "Directional ablation"][0] == "5/25"
    assert rows["harmful", "Directional ablation"][3] == "−0.75 ± 0.50"
    assert rows["harmless", "Random direction added"][0] == "5/25"
    for picture in (*found.figures, found.key):
        ElementTree.fromstring(picture)


def test_a_histogram_has_the_height_of_its_shares():
    plain, ablated, *_ = metrics(Measured.read(metrics_record())).figures

    def heights(picture: str) -> list[float]:
        """Of the harmful prompts' steps: how high each lies over the lowest."""
        points = re.findall(r"[ML]([\d.]+) ([\d.]+)", picture.partition('class="line"')[2].partition("<title>")[0])
        ys = [float(y) for _, y in points]
        return sorted({round(max(ys) - y, 1) for y in ys})

    assert heights(plain)[-1] == pytest.approx(4 * heights(plain)[1], rel=0.02)  # 20 and 5 of 25
    assert heights(plain) == heights(ablated)  # the same scale, the same shares on other sides
    assert heights(plain) != [0]
    assert f"<title>harmful, 0.5 to 1: 80.0{SPACE}% (n = 25)</title>" in plain
    assert f"<title>harmless, −1.5 to −1: 80.0{SPACE}% (n = 25)</title>" in plain


def test_a_run_with_these_records_shows_their_sections(tmp_path):
    run = run_folder.build(tmp_path)
    write_json(run / "mechanism" / "metrics.json", metrics_record())
    page = write_report(run).read_text(encoding="utf-8")
    shown = page[page.index("The refusal metric of every prompt") :]
    assert "With the direction ablated, 5/25" in shown.replace(SPACE, " ")
    assert shown.count("<svg") >= 5


def test_another_record_is_refused():
    with pytest.raises(BadRunFolder, match=r"m\.json is not what 'metrics' measures"):
        section_of("metrics", tokens_record(), "m.json")


class Found:
    """Something with a record, as an analysis returns it."""

    def __init__(self, made):
        self.record = lambda: made


def test_a_notebook_shows_what_the_report_says():
    for record, made in ((tokens_record(), first_tokens), (metrics_record(), metrics)):
        found, section = show(Found(record)), made(Measured.read(record))
        title, first, *rest = str(found).splitlines()
        assert (title, rest) == (section.title, section.said)
        assert first == FOUND[record["name"]](Measured.read(record))
        assert all(figure in found.html for figure in section.figures)
        assert "<th>" in found.html if section.table else "<table" not in found.html
