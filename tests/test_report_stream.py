"""The report's section on the stream under interventions says and draws the record's cosines, and its control."""

import re
from xml.etree import ElementTree

import pytest

from refusal.errors import BadRunFolder
from refusal.report.measured import Measured
from refusal.report.sections import section_of
from refusal.report.stream import section

CLASSES, KINDS, VECTORS = ["harmful", "harmless"], ["none", "ablation", "addition", "subtraction"], ["found", "random"]
LAYERS = ["0", "1", "2", "final"]
PLAIN = {"harmful": 0.8, "harmless": 0.0}
MOVED = {  # class, intervention, vector → cosine with the direction from layer 1 on
    ("harmful", "ablation", "found"): 0.0,
    ("harmful", "ablation", "random"): 0.7,
    ("harmless", "addition", "found"): 0.6,
    ("harmless", "addition", "random"): 0.08,
    ("harmful", "subtraction", "found"): 0.2,
    ("harmful", "subtraction", "random"): 0.76,
}


def record() -> dict:
    def layers(name: str, kind: str, vector: str, along: str) -> list[float]:
        moved = MOVED.get((name, kind, vector), PLAIN[name]) if along == "found" else -9.0
        return [0.0, moved, moved, moved / 2]

    mean = [
        [[[layers(name, kind, vector, along) for along in VECTORS] for vector in VECTORS] for kind in KINDS]
        for name in CLASSES
    ]
    sd = [[[[[0.05] * len(LAYERS) for _ in VECTORS] for _ in VECTORS] for _ in KINDS] for _ in CLASSES]
    axes = {"condition": CLASSES, "intervention": KINDS, "vector": VECTORS, "along": VECTORS, "layer": LAYERS}
    facts = {"layer": 1, "position": -1, "coefficient": 1.0, "seed": 0}
    return {"format": 1, "name": "stream", "axes": axes, "mean": mean, "sd": sd, "n": [9, 7], "facts": facts}


def test_the_sentences_say_how_far_each_intervention_moves_the_classes():
    said = " ".join(section(Measured.read(record())).said).replace("\N{NO-BREAK SPACE}", " ")
    assert "At layer 1, where the direction is added, the last token's cosine with it is 0.80 on 9 harmful" in said
    assert "Addition takes harmless prompts there to 0.60 (75.0 % of the way to harmful prompts)" in said
    assert "adding a random direction of the same length takes them to 0.08 (10.0 %" in said
    assert "Subtraction takes harmful prompts to 0.20 (75.0 % of the way to harmless prompts)" in said
    assert "random direction takes them to 0.76 (5.0 %" in said
    assert "Ablation leaves 0 at most in the mean, at any layer; with a random direction ablated it is 0.70" in said
    assert "0.10 on harmful prompts after subtraction and 0.30 on harmless ones after addition" in said


def test_a_step_away_from_the_other_class_has_a_true_minus_sign(monkeypatch):
    monkeypatch.setitem(MOVED, ("harmless", "addition", "random"), -0.08)
    assert "takes them to −0.08 (−10.0" in " ".join(section(Measured.read(record())).said)


def test_both_figures_have_every_curve_and_one_scale():
    made = section(Measured.read(record()))
    found, random = made.figures
    assert found.count("<title>") == random.count("<title>") == 5 * len(LAYERS)
    assert "<title>harmful, subtracted, layer 2: 0.2 ± 0.05 (n = 9)</title>" in found
    assert "<title>harmless, added, layer 1: 0.08 ± 0.05 (n = 7)</title>" in random
    assert "var(--c7)" in random  # controls are grey
    assert "var(--c7)" not in found
    places = [
        re.findall(r'translate\(([^)]*)\)"[^<]*<title>harmless, layer 2:', picture) for picture in (found, random)
    ]
    assert places[0] == places[1] != []
    for picture in (found, random, made.key):
        ElementTree.fromstring(picture)


def test_another_record_is_refused():
    with pytest.raises(BadRunFolder, match=r"s\.json is not what 'stream' measures"):
        section_of("stream", record() | {"axes": {}}, "s.json")
