"""The report's sections on ablating less: sentences, bars and table say the record's numbers with their intervals."""

import re

import pytest

from refusal.report.measured import Measured
from refusal.report.minimal import layers, minimal
from refusal.statistics import Rate

LAYERS = {
    "axes": {
        "condition": ["harmful"],
        "vector": ["found", "random"],
        "blocks": ["only", "from", "up to"],
        "layer": ["0", "1", "2"],
    },
    "mean": [[[[0.8, 0.1, 0.4], [0.0, 0.2, 0.7], [0.8, 0.0, 0.0]], [[1.0, 0.9, 1.0]] * 3]],
    "sd": [[[[0.0] * 3] * 3] * 2],
    "n": [20],
    "facts": {"layer": 1, "seed": 0, "nothing": 0.95, "refusal tokens": ["I"]},
}
LABELS = ["nothing", "everything", "embedding only", "MLP only", "8 heads", "8 other heads", "prompt tokens"]
SETS = ["generated tokens", "layer 1 and later", "smallest set of layers", "smallest set of parts"]
REFUSED = dict(zip([*LABELS, *SETS], (20, 1, 20, 2, 19, 20, 3, 18, 4, 5, 6), strict=True))


def rate(k: int, n: int = 20) -> dict:
    return Rate(k, n).record("refused")


def small(members: list[str], **more) -> dict:
    grown = [{"member": x, "metric": -1.0, **Rate(12 // (i + 1), 40).record("likely")} for i, x in enumerate(members)]
    return {"members": members, "metric": -3.0, "candidates": 9, **Rate(1, 40).record("likely"), "grown": grown, **more}


@pytest.fixture
def record() -> dict:
    refused = {"found": {label: rate(k) for label, k in REFUSED.items()}}
    refused["random"] = {label: rate(20 if label != "MLP only" else 17) for label in REFUSED}
    held_out = {"held out": Rate(2, 20).record("likely")}
    return {
        "axes": {"condition": ["harmful"], "vector": ["found", "random"], "ablated": [*REFUSED]},
        "mean": [],
        "sd": [],
        "n": [20],
        "facts": {
            **{"layer": 1, "seed": 0, "limit": 0.1, "max_new_tokens": 48, "searched": 99, "refused": refused},
            "sets": {
                "layers": small(["4"], **held_out, others=[0.2, 0.9, 0.5]),
                "parts": small(["MLP 0", "attention 2"], **held_out, others=[1.0, 0.75]),
            },
        },
    }


def plain(texts) -> str:
    return " ".join(texts).replace("\N{NO-BREAK SPACE}", " ")


def test_layers_that_are_enough_are_said_with_their_interval_and_control():
    found = layers(Measured.read(LAYERS))
    said = plain(found.said)
    assert "Without ablation 95.0 % [76.4 %, 99.1 %] of 20 held-out harmful prompts are likely to be refused" in said
    assert "it is 10.0 % [2.8 %, 30.1 %] at best, at layer 1, and less than half at 2 of 3 layers (1, 2)." in said
    assert "as late as from layer 1 on" in said
    assert "A random direction leaves at least 90.0 % [69.9 %, 97.2 %]" in said
    told = re.findall("<title>(.*?)</title>", found.figures[0])
    assert "only this block, layer 2: 8/20 = 40.0 % [21.9 %, 61.3 %]" in plain(told)
    assert sum("all up to it" in one for one in told) == 3


def test_what_is_left_is_said_for_every_restriction(record):
    found = minimal(Measured.read(record))
    said = plain(found.said)
    assert "the model refuses 100.0 % [83.9 %, 100.0 %], and with everything ablated 5.0 % [0.9 %, 23.6 %]." in said
    assert "it refuses: embedding 100.0 % [83.9 %, 100.0 %], MLP 10.0 % [2.8 %, 30.1 %]." in said
    assert "8 heads 95.0 % [76.4 %, 99.1 %], 8 other heads 100.0 %" in said
    assert "places ablated: prompt tokens 15.0 % [5.2 %, 36.0 %], generated tokens 90.0 %" in said
    assert "layer 1 and later 20.0 %" in said
    assert "at least 85.0 % [64.0 %, 94.8 %] are refused, whatever is ablated" in said
    assert "smallest set of parts that was found has 2 of 9: MLP 0, attention 2. On the 40 other prompts" in said
    assert "2.5 % [0.4 %, 12.9 %] are likely to be refused; of the held-out ones 30.0 % [14.5 %, 51.9 %]" in said
    assert said.count("are refused, which is not surely below 10.0 %.") == 2
    assert "3 other sets of that size leave 20.0 % to 90.0 % likely to be refused (median 50.0 %)" in said
    table = found.table
    assert [row[:2] for row in table.rows] == [["layers", "4"], ["parts", "MLP 0, attention 2"]]
    assert plain(table.rows[1][3:]).startswith("10.0 % [2.8 %, 30.1 %] 75.0 % to 100.0 % 30.0 % [14.5 %")


def test_figures_have_a_bar_for_every_restriction_and_one_for_a_set_that_grew(record):
    bars, growth = minimal(Measured.read(record)).figures
    told = plain(re.findall("<title>(.*?)</title>", bars))
    assert "MLP only, the direction: 10.0 % [2.8 %, 30.1 %]" in told
    assert "MLP only, a random direction: 85.0 %" in told
    assert bars.count("<rect") == 2 * len(REFUSED)
    assert re.findall("<title>([^,]*), the direction: ([0-9.]+)", growth) == [
        ("MLP 0", "30.0"),
        ("+ attention 2", "15.0"),
    ]


def test_where_no_set_is_enough_that_is_said_and_no_row_is_shown(record):
    none = {"members": [], "metric": 2.0, "candidates": 9, **Rate(30, 40).record("likely")}
    for by in record["facts"]["refused"].values():
        del by["smallest set of parts"]
    record["axes"]["ablated"].remove("smallest set of parts")
    record["facts"]["sets"]["parts"] = none
    found = minimal(Measured.read(record))
    assert "No set of parts is enough: all 9 together leave 75.0 % [59.8 %, 85.8 %] of 40 other" in plain(found.said)
    assert len(found.figures) == 1
    assert [row[0] for row in found.table.rows] == ["layers"]


def test_a_set_of_all_there_is_has_no_others_to_be_held_against(record):
    record["facts"]["sets"]["layers"]["others"] = []
    found = minimal(Measured.read(record))
    assert found.table.rows[0][4] == "–"
    assert "other sets" not in plain(found.said[3:4])
