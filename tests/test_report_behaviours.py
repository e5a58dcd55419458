"""The report's section on behaviours says every rate with its control, draws it, and shows answers as they are."""

from xml.etree import ElementTree

import pytest

from refusal.errors import BadRunFolder
from refusal.report.behaviours import section
from refusal.report.measured import Measured
from refusal.report.sections import section_of
from refusal.statistics import count, mcnemar

N = 20
NAMES = ("none", "ablation", "random_ablation")


def first(k: int) -> list[bool]:
    return [i < k for i in range(N)]


def asked(refused: dict[str, int], same: dict[str, int], right: dict[str, int] | None = None) -> dict:
    rates = {
        name: {
            **count(first(refused[name])).record("refused"),
            "same": count(first(same[name])).record("same"),
            **({"right": count(first(right[name])).record("right")} if right else {}),
        }
        for name in NAMES
    }
    of, counted = ("right", right) if right else ("refused", refused)
    tests = {name: {"of": of, **mcnemar(first(counted[name]), first(counted["none"])).record()} for name in NAMES[1:]}
    shown = [{"prompt": "Say <no>?", "answers": {"none": "No.", "ablation": "y" * 300, "random_ablation": "No!"}}]
    return {"rates": rates, "tests": tests, "right": "a plain no" if right else "", "shown": shown}


def record() -> dict:
    kinds = {
        "asked to refuse": asked(
            {"none": 20, "ablation": 9, "random_ablation": 20},
            {"none": 20, "ablation": 1, "random_ablation": 15},
            {"none": 20, "ablation": 2, "random_ablation": 19},
        ),
        "repeat a refusal": asked(
            {"none": 10, "ablation": 9, "random_ablation": 10}, {"none": 20, "ablation": 18, "random_ablation": 20}
        ),
    }
    empty = {"axes": {"condition": []}, "mean": [], "sd": [], "n": []}
    return {"format": 1, "name": "behaviours", **empty, "facts": {"layer": 3, "seed": 0, "asked": kinds}}


def test_every_rate_is_said_with_its_test_and_its_control():
    said = section(Measured.read(record())).said
    refuse, repeat, last = (text.replace("\N{NO-BREAK SPACE}", " ") for text in said)
    assert refuse.startswith(
        "Asked to refuse (20 prompts): right (a plain no) are 100.0 % [83.9 %, 100.0 %] of the answers without"
    )
    assert "10.0 % [2.8 %, 30.1 %] with the direction ablated (−90.0 points, p = 8e-06)" in refuse
    assert "95.0 % [76.4 %, 99.1 %] with a random one (no difference shown: " in refuse
    assert "Unchanged are 5.0 % [0.9 %, 23.6 %] with the direction ablated, 75.0 %" in refuse
    assert repeat.startswith("Asked to repeat a refusal (20 prompts): refusals are 50.0 %")
    assert "not corrected" in last


def test_every_kind_is_drawn_and_its_answers_shown():
    made = section(Measured.read(record()))
    assert len(made.figures) == 4
    assert "ablation: 2/20 = 10.0" in made.figures[0]
    assert "ablation: 1/20 = 5.0" in made.figures[1]
    assert "No intervention" not in made.figures[1]  # it is what the others are compared with
    assert made.table is not None
    assert len(made.table.head) == 5
    row = made.table.rows[0]
    assert row[:3] == ["asked to refuse", "Say <no>?", "No."]
    assert row[3] == "y" * 239 + "…"
    for picture in made.figures:
        ElementTree.fromstring(picture)


def test_another_record_is_refused():
    with pytest.raises(BadRunFolder, match=r"b\.json is not what 'behaviours' measures"):
        section_of("behaviours", record() | {"facts": {}}, "b.json")
