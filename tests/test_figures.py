"""Figures: every record is drawn where it belongs, says its numbers, and cannot break out of the picture."""

import re
from functools import partial
from xml.etree import ElementTree

import pytest

import run_folder
from refusal import figures, formats, labels, records, svg

NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_folder.build(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def selection(run):
    return records.read_rows(run / "selection.jsonl")


def parse(picture: str) -> ElementTree.Element:
    """Parse a figure strictly, as a program would that does not forgive like a browser."""
    return ElementTree.fromstring(picture.replace("<svg ", f"<svg {NAMESPACE} ", 1))


def titles(picture: str) -> list[str]:
    return [node.text or "" for node in parse(picture).iter() if node.tag.endswith("title")]


def cells(picture: str) -> list[ElementTree.Element]:
    return [n for n in parse(picture).iter() if n.tag.endswith("rect") and n.get("class") == "cell"]


@pytest.mark.parametrize(
    "draw", [figures.verdicts, *(partial(figures.scores, score=score) for score in figures.SCORES)]
)
def test_every_candidate_is_a_cell_that_tells_its_scores_and_verdict(selection, draw):
    def told(value):
        return "not a number" if value is None else formats.number(value)

    expected = [
        f"position {formats.number(row['position'])}, layer {row['layer']}: {row['verdict']}; bypass score "
        f"{told(row['bypass'])}, induce score {told(row['induce'])}, KL {told(row['kl'])}"
        for row in selection
    ]
    assert titles(draw(selection)) == expected
    assert sum("not a number" in text for text in expected) == 1  # so that the case is there


def test_the_chosen_candidate_alone_has_a_frame(selection):
    picture = figures.scores(selection, "bypass")
    rings = [node for node in parse(picture).iter() if node.get("class") == "ring"]
    best = next(cell for cell in cells(picture) if ": selected;" in (cell[0].text or ""))
    assert len(rings) == 1
    for side, size in (("x", "width"), ("y", "height")):
        ring, cell = ([float(n.get(name, "nan")) for name in (side, size)] for n in (rings[0], best))
        assert ring[0] < cell[0] < sum(cell) < sum(ring)


def test_a_better_score_has_more_colour():
    values = [-3.0, 0.5, 2.0]
    rows = [
        {"position": -1, "layer": i, "bypass": v, "induce": v, "kl": 10.0**v, "verdict": ""}
        for i, v in enumerate(values)
    ]
    for score, better in (("bypass", -1), ("kl", -1), ("induce", 1)):
        shares = [float(cell.get("fill-opacity", "nan")) for cell in cells(figures.scores(rows, score))]
        assert shares[::better] == sorted(shares)
        assert (min(shares), max(shares)) == (0.0, figures.DARKEST)
        assert shares[1] == pytest.approx(figures.DARKEST * (0.7 if better == 1 else 0.3), abs=0.01)


def test_divergences_under_the_floor_have_one_colour():
    rows = [
        {"position": -1, "layer": i, "bypass": 0.0, "induce": 0.0, "kl": kl, "verdict": ""}
        for i, kl in enumerate([0.0, 1e-9, 1e-4, 8.0])
    ]
    shares = [cell.get("fill-opacity") for cell in cells(figures.scores(rows, "kl"))]
    assert shares[0] == shares[1] == shares[2] == f"{figures.DARKEST:.2f}"
    assert shares[3] == "0.00"


def test_numbers_stand_in_cells_only_where_they_fit():
    def written(layers):
        rows = [
            {"position": -1, "layer": i, "bypass": -12.3, "induce": 0.0, "kl": 0.01, "verdict": "survivor"}
            for i in range(layers)
        ]
        return "−12</text>" in figures.scores(rows, "bypass")

    assert written(10)
    assert not written(80)


def test_bars_are_as_long_as_their_rates(run):
    rows = labels.in_order(records.read_json(run / "results.json")["harmful"])
    bars = [node for node in parse(figures.rates(rows, "refused")).iter() if node.tag.endswith("rect")]
    widths = [float(bar.get("width", "nan")) for bar in bars]
    full = max(widths)
    assert [name for name, _ in rows] == [
        "none",
        "ablation",
        "random_ablation",
        "weights",
        "addition",
        "random_addition",
    ]
    assert [width / full for width in widths] == pytest.approx([row["rate"] for _, row in rows], abs=1e-3)
    told = formats.rate_text(dict(rows)["ablation"], "refused")
    assert f"Directional ablation: {told}" in titles(figures.rates(rows, "x"))


def test_a_random_row_that_repeats_nothing_is_kept():
    row = {"refused": 1, "n": 2, "rate": 0.5, "low": 0.1, "high": 0.9}
    assert [name for name, _ in labels.in_order({"random": row, "none": row})] == ["none", "random"]


def test_a_rate_of_nothing_is_a_dash():
    row = {"refused": 0, "n": 0, "rate": None, "low": 0.0, "high": 1.0}
    assert "–" in figures.rates([("none", row)], "nothing counted")


@pytest.mark.parametrize("measure", ["refused", "exact"])
def test_coefficient_curves_tell_every_point(run, measure):
    record = records.read_json(run / "coefficients.json")
    told = titles(figures.coefficients(record, measure=measure))
    for name in ("direction", "random"):
        for row in record[name]:
            rate = formats.rate_text(row[measure], measure)
            assert f"{name}, c = {formats.number(row['coefficient'])}: {rate}" in told
    assert len(told) == 2 * len(record["coefficients"])


def test_projections_tell_every_layer_of_both_sets(run):
    record = records.read_json(run / "projections.json")
    told = titles(figures.projections(record, layer=3))
    assert len(told) == 2 * len(record["layers"])
    assert f"harmful, layer 9: {formats.number(36.0)} ± {formats.number(8.2)} (n = 40)" in told


def test_tokens_are_made_visible_and_escaped(selection):
    tokens = ["<script>", " \n", "\u200b", "&", "a"]
    assert formats.position_label(-4, tokens) == "−4 ␣\\n"
    for drawn in (figures.scores(selection, "kl", tokens=tokens), figures.verdicts(selection, tokens=tokens)):
        assert "<script>" not in drawn
        assert "&lt;script&gt;" in drawn


def test_names_of_interventions_are_escaped():
    row = {"refused": 1, "n": 2, "rate": 0.5, "low": 0.1, "high": 0.9}
    picture = figures.rates([("<b>", row)], "<i>")
    assert "<b>" not in picture
    assert "<i>" not in picture
    assert "<b>: 1/2 = 50.0" in titles(picture)[0]


def test_the_key_names_the_verdicts_that_are_there(selection):
    there = {row["verdict"] for row in selection}
    assert {name for name in figures.CELLS if f"</svg> {name}</li>" in figures.verdicts_key(selection)} == there
    assert len({letter for letter, _, _ in figures.CELLS.values()}) == len(figures.CELLS)  # told without colour, too


def test_further_strengths_stand_beside_the_curve(run):
    record, results = (records.read_json(run / f"{name}.json") for name in ("coefficients", "results"))
    row = results["harmless"]["addition"] | {"coefficient": 2.0}
    told = titles(figures.coefficients(record, further=[row]))
    assert f"direction, all test prompts, c = 2: {formats.rate_text(row, 'refused')}" in told
    assert "on all test prompts" in figures.coefficients_key(further=True)


def test_a_figure_stands_alone_with_its_key_and_without_variables(selection):
    alone = svg.stand_alone(figures.verdicts(selection), figures.verdicts_key(selection))
    root = ElementTree.fromstring(alone)
    assert "var(" not in alone
    assert "prefers-color-scheme" not in alone
    shown = "".join(root.itertext())
    assert all(row["verdict"] in shown for row in selection)
    *_, width, height = map(float, root.get("viewBox", "").split())
    places = [(float(n.get("x", 0)), float(n.get("y", 0))) for n in root if n.tag.endswith("text")]
    assert all(0 <= x < width and 0 <= y < height for x, y in places)


def test_a_figure_for_a_browser_follows_the_scheme_of_its_page(selection):
    figure, key = figures.verdicts(selection), figures.verdicts_key(selection)
    both = svg.stand_alone(figure, key, schemes=True)
    assert "prefers-color-scheme: dark" in both
    light = dict(re.findall(r"--([\w-]+): (#\w+)", svg.PALETTE.partition("@media")[0]))
    drawn = re.sub(r"<style>.*?</style>", "", both, flags=re.DOTALL)
    same = re.sub(r"var\(--([\w-]+)\)", lambda found: light[found[1]], drawn)
    assert same == re.sub(r"<style>.*?</style>", "", svg.stand_alone(figure, key), flags=re.DOTALL)


def test_the_headline_stands_alone(run):
    results = records.read_json(run / "results.json")
    picture = figures.headline(results)
    root = ElementTree.fromstring(picture)  # its own namespace, well-formed
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in picture
    assert "href" not in picture
    shown = [node.text for node in root.iter() if node.tag.endswith("title")]
    assert len(shown) == sum(len(labels.in_order(results[name])) for name in ("harmful", "harmless"))


def test_the_headline_of_one_set_is_one_panel(tmp_path):
    results = records.read_json(run_folder.build_bare(tmp_path) / "results.json")
    assert "Harmless prompts refused" in figures.headline(results)
    assert "Harmful" not in figures.headline(results)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-8.3, 6.1), (0, 1e-5), (-3e4, 2e5), (0.2, 0.21), (0, 1.5)])
def test_ticks_are_few_round_and_inside(low, high):
    found = svg.ticks(low, high)
    assert 3 <= len(found) <= 11
    assert all(low <= tick <= high for tick in found)
    assert len({formats.number(tick) for tick in found}) == len(found)


def test_a_saved_figure_is_as_wide_as_its_longest_entry():
    key = svg.key([(svg.swatch(svg.fill(0)), "short"), (svg.swatch(svg.fill(1)), "x" * 100)])
    drawn = svg.Axes((0, 1), (0, 1)).picture("Title", "", [])
    narrow, wide = (int(ElementTree.fromstring(svg.stand_alone(drawn, one)).get("width", 0)) for one in ("", key))
    assert wide >= 100 * 6 > narrow
