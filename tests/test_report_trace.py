"""The report's section on the trace: sentences say its numbers, tokens stay text, and harmful ones are folded."""

import re

import pytest

from refusal.report.measured import Measured
from refusal.report.trace import section

POSITIONS = ["-3", "-2", "-1", "0", "1"]


def example(first: str) -> dict:
    rows = [[0.0, 1.0, -40.0, 2.0, 20.0], [1.0] * 5]
    return {"tokens": [first, "\n", "<b>", "I\u202e", ""], "answer": 3, "component": rows}


def curve(*means: float) -> list:
    return [list(means), [9.0] * 5]  # at the direction's layer, and behind the last block


@pytest.fixture
def record() -> dict:
    names = ["harmful", "harmless", "ablated", "bypassed"]
    found = [
        (1.0, 2.0, 80.0, 30.0, 5.0),
        (0.0, 2.0, -4.0, -3.0, 9.0),
        (0.0, 1e-6, 0.0, 0.0, 0.0),
        (1.0, 2.0, 80.0, -6.0, 1.0),
    ]
    return {
        "axes": {"condition": names, "vector": ["found", "random"], "layer": ["2", "final"], "position": POSITIONS},
        "mean": [
            [curve(*row), curve(1.0, -2.0, 3.0 if i else 2.5, 4.0 if i else 6.0, 5.0 if i else 90.0)]
            for i, row in enumerate(found)
        ],
        "sd": [[curve(*[0.5] * 5), curve(*[0.5] * 5)]] * 4,
        "n": [16, 12, 16, 16],
        "facts": {
            "layer": 2,
            "seed": 0,
            "max_new_tokens": 32,
            "post-instruction": ["<|end|>", "\n"],
            "examples": {name: [example("<script>")] for name in names},
            "n at": {name: [16, 16, 16, 12, 3 if name == "harmful" else 12] for name in names},
        },
    }


def test_the_place_where_classes_part_most_is_said_with_its_control(record):
    said = " ".join(section(Measured.read(record)).said)
    assert "part most at position −1 '\\n': there the component along the direction is +80.0 ± 0.5 on 16" in said
    assert "and −4.0 ± 0.5 on 12 harmless ones" in said
    assert "on the last tokens of the instruction +1.0, on the tokens of the template after it +84.0, on the" in said
    assert "first tokens of the answer +33.0." in said
    assert "Along a random direction the difference at that place is −0.5, and the largest anywhere +2.0" in said
    assert "at most 1e-06 at any position" in said
    assert "at their first token is −6.0 ± 0.5; at that of its own answers it is +30.0 ± 0.5" in said


def test_figures_tell_every_position_that_enough_prompts_have(record):
    lines, cells = section(Measured.read(record)).figures
    assert "harmful, position −1 &#x27;\\n&#x27;: 80 ± 0.5 (n = 16)" in lines
    assert "bypassed, position 0: −6 ± 0.5 (n = 12)" in lines
    assert "position 1:" not in lines  # 3 of 16 harmful prompts
    assert "layer 2, position 0: 33" in cells
    assert len(re.findall("layer final, position", cells)) == 4


def test_tokens_are_text_coloured_by_their_component_and_harmful_ones_are_folded(record):
    more = section(Measured.read(record)).more
    assert "<script>" not in more
    assert "&lt;script&gt;" in more
    assert "↵" in more
    assert "\u202e" not in more  # which would turn all that follows around
    assert "U+202E" in more
    assert re.findall(r'<details class="trace"( open)?>', more) == ["", " open", "", ""]
    assert more.count('<b class="begins"></b>') == 4
    one = more.split("<p>")[1]
    assert '<span title="−40" style="background: color-mix(in srgb, var(--c0) 100%, transparent)">&lt;b&gt;' in one
    assert '<span title="+20" style="background: color-mix(in srgb, var(--c1) 50%, transparent)">∅' in one
    assert '<span title="+1">↵</span>' in one  # too faint for a colour
    assert one.index("&lt;b&gt;") < one.index("begins") < one.index(">I<span")
