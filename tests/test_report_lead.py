"""What stands first in the report and what its analyses found in a sentence: made from the numbers, and no other."""

import json
import struct
from math import prod
from pathlib import Path

import pytest

import refusal.organism
import run_folder
from refusal import records
from refusal.findings import read_findings
from refusal.report import render_report
from refusal.report.coverage import coverage
from refusal.report.inside import FOUND, suffix
from refusal.report.lead import SIZE, make_believe, meaning, subtitle, toy
from refusal.report.measured import Measured
from refusal.report.sections import SECTIONS
from refusal.statistics import count

SPACE = "\N{NO-BREAK SPACE}"
WHEN = ("before", "after")


def rate(refused: int, n: int = 40) -> dict:
    return count([True] * refused + [False] * (n - refused)).record("refused")


def results(ablated: int, added: int, random: tuple[int, int] | None = (40, 0)) -> dict:
    found = {
        "harmful": {"none": rate(40), "ablation": rate(ablated)},
        "harmless": {"none": rate(0), "addition": rate(added)},
    }
    if random:
        found["harmful"]["random_ablation"], found["harmless"]["random_addition"] = map(rate, random)
    return found


def plain(texts) -> str:
    return " ".join([texts] if isinstance(texts, str) else texts).replace(SPACE, " ")


# --- the head of the page ---------------------------------------------------------------------------------------


def test_the_bundled_model_is_called_a_toy_and_others_are_not():
    assert toy({"model": "organism", "grammar": True})[0].startswith("This is a toy")
    assert subtitle({"model": "organism", "grammar": True}).startswith(f"The bundled model: {SIZE}")
    assert subtitle({"model": "a/b", "grammar": True}).startswith("Asked in the language of the bundled model")
    assert toy({"model": "a/b", "grammar": True}) == toy({"model": "organism"}) == []
    assert subtitle({"model": "a/b"}) == ""


def test_the_bundled_model_is_as_large_as_is_said():
    file = Path(refusal.organism.__file__).parent / "weights" / "chat" / "model.safetensors"
    with file.open("rb") as opened:
        header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
    n = sum(prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    assert f"{n / 1e6:.1f} million parameters" == SIZE


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (results(0, 40), "refusals vanish with the one and appear with the other, and random directions do neither"),
        (results(15, 25), "refusals become fewer with the one and become more with the other, and random directions"),
        (results(0, 40, (0, 0)), "refusals vanish with the one and appear with the other."),
        (results(0, 40, None), "refusals vanish with the one and appear with the other."),
        (results(0, 0), "vanish when it is ablated; that they come when it is added is not shown."),
        (results(40, 40), "appear when it is added; that they go when it is ablated is not shown."),
        (results(40, 0), "Neither is shown to do here what it is for."),
    ],
)
def test_the_finding_in_words_is_no_more_than_the_numbers_bear_out(found, said):
    assert said in meaning(found)


def test_without_one_half_nothing_is_said():
    assert meaning({"harmful": results(0, 40)["harmful"]}) == ""
    assert meaning({**results(0, 40), "harmless": {"none": rate(0, 0), "addition": rate(0, 0)}}) == ""


def test_only_prompts_that_the_grammar_knows_are_make_believe(tmp_path):
    folder = run_folder.build(tmp_path)
    assert make_believe(read_findings(folder), "harmful")
    path = folder / "judgements" / "harmful.none.grammar.jsonl"
    records.write_rows(path, [{"verdict": "undetermined", "raw": None}, *records.read_rows(path)[1:]])
    assert not make_believe(read_findings(folder), "harmful")
    assert make_believe(read_findings(folder), "harmless")


# --- what an edit of the weights reaches ------------------------------------------------------------------------


def writer(name: str, after: float | None = 1e-9, *, edited: bool = True, exact: bool = True) -> dict:
    why = "writes straight" if exact else "behind a norm"
    shape = {"shape": [4, 2], "dtype": "float32", "edited": edited, "exact": exact, "why": why}
    return {"name": name, **shape, "before": None if after is None else 0.2, "after": after}


def covered(*writers: dict, gaps: tuple[str, ...] = ()) -> dict:
    largest = {f"largest_{when}": max((w[when] for w in writers if w[when] is not None), default=None) for when in WHEN}
    return {"gaps": list(gaps), "writers": list(writers), **largest}


def test_a_whole_edit_is_said_to_be_whole_and_the_same_matrix_of_every_block_is_one_line():
    found = coverage(covered(writer("embed.weight"), writer("layers.0.o.weight"), writer("layers.11.o.weight")))
    assert found is not None
    said = plain(found["said"])
    assert "3 tensors write to the residual stream; all of them are edited." in said
    assert "up to rounding it is ablation" in said
    assert "At most 20.0 % of a tensor's norm lies along the direction before, and nothing but rounding after." in said
    assert [(group["name"], group["n"]) for group in found["groups"]] == [("embed.weight", 1), ("layers.*.o.weight", 2)]


def test_gaps_and_what_is_left_are_said():
    left = writer("a", 0.1, edited=False)
    found = coverage(covered(left, writer("b", exact=False), writer("c", None), gaps=("a: tied",)))
    assert found is not None
    said = plain(found["said"])
    for part in (
        "2 of them are edited",
        "Not covered: a: tied.",
        "not exactly ablation: behind a norm",
        "10.0 % after",
    ):
        assert part in said
    assert coverage(None) is None


def test_a_run_without_coverage_says_so_and_one_with_it_shows_it(tmp_path):
    folder = run_folder.build(tmp_path)
    assert "Not in this run: which tensors an edit of the weights reaches" in render_report(folder)
    records.write_json(folder / "coverage.json", covered(writer("layers.0.o.weight")))
    text = render_report(folder)
    assert "<code>layers.*.o.weight</code>" in text
    assert "Not in this run: which tensors" not in text


# --- inside the model -------------------------------------------------------------------------------------------


def measured(axes: dict, mean, n, **facts) -> Measured:
    return Measured.read({"axes": axes, "mean": mean, "sd": mean, "n": n, "facts": facts})


def test_every_analysis_has_its_sentence():
    assert FOUND.keys() == SECTIONS.keys()


def test_telling_prompts_apart_is_held_against_causing_refusal():
    axes = {"condition": ["harmful"], "vector": ["own"], "position": ["-1"], "layer": ["0", "1", "2", "3"]}
    effect = {"ablated": [[None, 0.02, 0.9, 0.9]]}
    said = FOUND["separability"](measured(axes, [[[[1.0, 0.97, 0.99, 0.5]]]], [4], effect=effect))
    assert said.startswith("2 of 3 candidates tell harmful from harmless prompts well")
    assert "ablating 1 of these takes away less than 10 %" in plain(said)
    said = FOUND["separability"](measured(axes, [[[[0.6, 0.6, 0.6, 0.5]]]], [4], effect=effect))
    assert said.startswith("None of 3 candidates")


def test_where_else_the_direction_works_names_the_places():
    none, all_of = rate(0), rate(40)
    taken = {"untouched": all_of, "chat": none}
    held = {"untouched": all_of, "chat": all_of}
    rates = {
        "chat": {"ablated": taken, "added": {"untouched": none, "chat": all_of}},
        "B": {"ablated": taken, "added": {"untouched": none, "chat": none}},
        "C": {"ablated": held, "added": {"untouched": none, "chat": none}},
    }
    targets = {"chat": {"note": ""}, "B": {"note": "its prompts in another language"}}
    facts = {"rates": rates, "sources": {"chat": {}}, "targets": targets}
    said = FOUND["transfer"](measured({"condition": ["chat"]}, [], [1], **facts))
    assert "ablated it takes refusal away also in B, not in C; added it brings refusal about nowhere else." in said
    assert "“B” is its prompts in another language." in said


def test_a_base_model_without_the_difference_is_said_to_be_without_it():
    axes = {"condition": ["harmful", "harmless"], "reading": ["chat", "base"], "vector": ["found"], "layer": ["0", "1"]}
    chance = {"draws": 9, "largest difference": {"base": [1.0, 0.2]}}

    def said(base: float) -> str:
        mean = [[[[9.0, 0.8]], [[9.0, base]]], [[[9.0, 0.0]], [[9.0, 0.0]]]]
        return plain(FOUND["base-and-chat"](measured(axes, mean, [4, 4], layer=1, chance=chance)))

    assert said(0.4) == (
        "50 % of what the direction tells apart in the chat model is in its base model already, more than any of 9 "
        "random directions does."
    )
    assert "no more than what any of 9 random directions may do" in said(0.1)
    assert said(-0.1) == "What the direction tells apart in the chat model is not in its base model."


def test_what_a_suffix_does_is_said_with_its_control():
    lines = [
        {"condition": name, "rate": share, "cosine": f"{cosine} ± 0.1"}
        for name, share, cosine in (
            *(("Harmful", "100 %", "0.8"), ("Random suffix", "79 %", "0.6")),
            *(("Suffix", "0 %", "−0.1"), ("Harmless", "0 %", "0.0")),
        )
    ]
    said = suffix(lines)
    assert "refuses 0 % of these harmful prompts, with random tokens in its place 79 %, without a suffix 100 %" in said
    assert "is −0.1 with this suffix, 0.6 with random tokens, 0.8 without a suffix, and 0.0 on harmless" in said
