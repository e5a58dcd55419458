"""The report's section on components: sentences say the record's numbers, and the figures tell them."""

import re

from refusal.formats import percent
from refusal.report.components import section
from refusal.report.measured import Measured

PARTS = ["embedding", "attention 0", "MLP 0", "attention 1", "MLP 1"]
RECORD = {
    "axes": {
        "condition": ["harmful", "harmless"],
        "vector": ["found", "random"],
        "component": [*PARTS, "H0.0", "H0.1", "H1.0", "H1.1"],
    },
    "mean": [
        [[1.0, 2.0, 30.0, 4.0, 13.0, 1.5, 0.5, 1.0, 3.0], [0.5, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5]],
        [[1.0, 1.0, 10.0, -1.0, 4.0, 1.0, 0.0, 1.0, -2.0], [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]],
    ],
    "sd": [[[2.0] * 9] * 2] * 2,
    "n": [16, 9],
    "facts": {"position": -1, "layer": 1, "seed": 0, "off": 1e-7, "heads": 4},
}


def test_sums_shares_and_the_few_that_write_half_are_said():
    said = " ".join(section(Measured.read(RECORD)).said)
    assert "is +50.0 on 16 harmful prompts and +15.0 on 9 harmless ones, the sum of what 5 parts wrote" in said
    assert "Along a random direction it is +1.5 and +0.5." in said
    shares = [percent(share / 35) for share in (0, 6, 29)]
    assert "+35.0, is written {} by the embedding, {} by attention, {} by MLPs".format(*shares) in said
    assert "One part writes half of it: MLP 0 (+20.0)." in said
    assert "Of 4 heads, H1.1 writes most more on harmful prompts: +5.00 ± 1.63, and +0.50 ± 1.63 along a random" in said
    assert "All heads together write +6.0 more." in said
    assert "no proof that the model needs" in said


def test_half_of_a_negative_difference_is_written_by_the_parts_that_write_least():
    turned = {**RECORD, "mean": RECORD["mean"][::-1]}
    said = " ".join(section(Measured.read(turned)).said)
    assert "The difference between the classes, −35.0, is written" in said
    assert "One part writes half of it: MLP 0 (−20.0)." in said


def test_figures_show_both_classes_over_layers_and_what_differs_most_first():
    attention, mlps, parts, heads = section(Measured.read(RECORD)).figures
    assert "harmful, attention 1: 4 ± 2 (n = 16)" in attention
    assert "harmless, MLP 0: 10 ± 2 (n = 9)" in mlps
    assert "MLP" not in "".join(re.findall("<title>(.*?)</title>", attention))
    order = re.findall(r"<title>([^,]+), harmful − harmless", parts)
    assert order == ["MLP 0", "MLP 1", "attention 1", "attention 0", "embedding"]
    assert "H1.1, harmful − harmless: 5 ± 1.633" in heads
    assert "H0.0, the same along a random direction: 1 ± 1.633" in heads


def test_a_network_without_heads_has_no_figure_of_them():
    axes = {**RECORD["axes"], "component": ["embedding", "mixer 0", "mixer 1", "mixer 2", "mixer 3"]}
    cut = {name: [[row[:5] for row in rows] for rows in RECORD[name]] for name in ("mean", "sd")}
    found = section(Measured.read({**RECORD, **cut, "axes": axes, "facts": {**RECORD["facts"], "heads": 0}}))
    assert len(found.figures) == 1
    assert f"{percent(1)} by mixer" in " ".join(found.said)
    assert "head" not in " ".join(found.said)
