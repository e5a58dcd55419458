"""The selection rule: against the official runs' recorded scores, and against the official code read literally."""

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal.errors import BadInput, BadSetting, NoDirection
from refusal.rule import (
    HIGH_KL,
    LATE_LAYER,
    LOW_INDUCE,
    NO_DIFFERENCE,
    NOT_A_NUMBER,
    NOT_SCORED,
    SELECTED,
    SURVIVOR,
    Limits,
    Score,
    choose,
    read_complete_scores,
    read_scores,
)

GOLDEN = Path(
    os.environ.get("REFUSAL_OFFICIAL_RUNS") or Path(__file__).resolve().parents[2] / "shared" / "golden" / "official"
)
NAN = float("nan")
recorded = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"the official runs' records are not at {GOLDEN} (REFUSAL_OFFICIAL_RUNS)"
)


def one(**changes):
    fields = {"position": -1, "layer": 3, "bypass": -1.0, "induce": 1.0, "kl": 0.05} | changes
    return Score(**fields)


def verdict(n_layers=10, limits=None, **changes):
    return choose([one(**changes)], n_layers, limits=limits or Limits()).scores[0].verdict


# --- recorded truth ---------------------------------------------------------------------------------------------


@recorded
@pytest.mark.parametrize(
    ("run", "n_layers", "chosen", "survivors", "total"),
    [
        ("qwen-1_8b-chat", 24, (-2, 15), 12, 120),
        ("gemma-2b-it", 18, (-2, 10), 13, 90),
        ("llama-2-7b-chat-hf", 32, (-1, 14), 5, 192),
    ],
)
def test_the_official_scores_give_the_official_choice(run, n_layers, chosen, survivors, total):
    folder = GOLDEN / run / "select_direction"
    verdicts = choose(read_scores(folder / "direction_evaluations.json"), n_layers)
    summary = verdicts.summary()
    assert (summary["position"], summary["layer"]) == chosen
    assert (summary["survivors"], summary["total"]) == (survivors, total)
    filtered = json.loads((folder / "direction_evaluations_filtered.json").read_text())
    kept = [s for s in verdicts.scores if s.verdict in (SELECTED, SURVIVOR)]
    assert [(s.position, s.layer) for s in sorted(kept, key=lambda s: s.bypass)] == [
        (row["position"], row["layer"]) for row in filtered
    ]
    metadata = json.loads((GOLDEN / run / "direction_metadata.json").read_text())
    assert (metadata["pos"], metadata["layer"]) == chosen
    assert summary["bypass"] == filtered[0]["refusal_score"]
    assert summary["induce"] == filtered[0]["steering_score"]
    assert summary["kl"] == filtered[0]["kl_div_score"]


@recorded
def test_the_official_not_a_number_rows_are_read_and_lose():
    scores = read_scores(GOLDEN / "llama-2-7b-chat-hf" / "select_direction" / "direction_evaluations.json")
    lost = [s for s in choose(scores, 32).scores if s.verdict == NOT_A_NUMBER]
    assert [(s.position, s.layer) for s in lost] == [(-6, 30), (-6, 31)]


# --- the rule's edges -------------------------------------------------------------------------------------------


def test_scores_exactly_at_the_limits_pass():
    assert verdict(kl=0.1) == SELECTED
    assert verdict(kl=math.nextafter(0.1, 1)) == HIGH_KL
    assert verdict(induce=0.0) == SELECTED
    assert verdict(induce=-5e-324) == LOW_INDUCE
    assert verdict(layer=7) == SELECTED
    assert verdict(layer=8) == LATE_LAYER


@pytest.mark.parametrize(
    ("n_layers", "cut"), [(24, 19), (32, 25), (18, 14), (28, 22), (26, 20), (40, 32), (80, 64), (60, 48), (10, 8)]
)
def test_the_layer_cut_is_rounded_down_as_in_the_official_code(n_layers, cut):
    assert Limits().first_pruned(n_layers) == cut
    assert verdict(n_layers, layer=cut - 1) == SELECTED
    assert verdict(n_layers, layer=cut) == LATE_LAYER


def test_yi_shows_that_the_rounding_changes_the_choice():
    """The two candidates of the recorded Yi 6B run (32 layers) between which code and prose decide differently."""
    code, prose = one(position=-5, layer=20, bypass=-6.75), one(position=-1, layer=25, bypass=-7.06)
    chosen = choose([code, prose], 32).chosen
    assert (chosen.position, chosen.layer) == (-5, 20)  # as paper Table 5 has it
    assert prose.layer < 0.8 * 32  # the paper's inequality would have let the better bypass score in


def test_ties_go_to_the_first_in_enumeration_order():
    scores = [one(position=p, layer=l, bypass=-2.0) for p in (-2, -1) for l in (1, 2)]  # noqa: E741
    verdicts = choose([one(position=-3, layer=0, bypass=-1.0), *scores], 10)
    assert (verdicts.chosen.position, verdicts.chosen.layer) == (-2, 1)
    assert [s.verdict for s in verdicts.scores] == [SURVIVOR, SELECTED, SURVIVOR, SURVIVOR, SURVIVOR]


@pytest.mark.parametrize("name", ["bypass", "induce", "kl"])
def test_one_score_that_is_not_a_number_is_enough_to_lose(name):
    assert verdict(**{name: NAN}) == NOT_A_NUMBER


def test_no_difference_stays_no_difference():
    table = [one(layer=0, bypass=NAN, induce=NAN, kl=NAN, verdict=NO_DIFFERENCE), one()]
    assert [s.verdict for s in choose(table, 10).scores] == [NO_DIFFERENCE, SELECTED]


def test_other_limits_choose_otherwise():
    table = [one(layer=9, bypass=-3.0), one(layer=4, bypass=-2.0, kl=0.5), one(layer=5)]
    assert choose(table, 10).chosen.layer == 5
    assert choose(table, 10, limits=Limits(max_kl=math.inf)).chosen.layer == 4
    assert choose(table, 10, limits=Limits(prune_layers=0.0)).chosen.layer == 9


def test_choosing_again_from_judged_scores_changes_nothing():
    first = choose([one(layer=l, bypass=-float(l)) for l in range(10)], 10)  # noqa: E741
    assert choose(first.scores, 10) == first
    assert first.chosen.layer == 7
    assert choose(first.scores, 10, limits=Limits(prune_layers=0.5)).chosen.layer == 4


def test_when_nothing_passes_the_error_counts_the_reasons():
    verdicts = choose([one(kl=1.0), one(layer=9), one(layer=8), one(induce=-1.0), one(kl=NAN)], 10)
    assert verdicts.survivors == 0
    message = "None of 5 .*1 KL above limit, 2 late layer, 1 induce below limit, 1 not a number.*loosen max_kl"
    for ask in (lambda: verdicts.chosen, verdicts.summary):
        with pytest.raises(NoDirection, match=message):
            ask()


# --- the official code, read literally --------------------------------------------------------------------------


def official_choice(table, n_layer, kl_threshold=0.1, induce_threshold=0.0, prune_layer_percentage=0.2):
    """`select_direction.py` lines 106 to 126 and 240 to 289 in our own words: filter, collect, stable sort."""

    def discard(row):
        if math.isnan(row.bypass) or math.isnan(row.induce) or math.isnan(row.kl):
            return True
        if row.layer >= int(n_layer * (1.0 - prune_layer_percentage)):
            return True
        return row.kl > kl_threshold or row.induce < induce_threshold

    kept = [(-row.bypass, row.position, row.layer) for row in table if not discard(row)]
    return [(p, layer) for _, p, layer in sorted(kept, key=lambda item: item[0], reverse=True)]


few = st.sampled_from([NAN, -2.0, -1.0, -0.0, 0.0, 0.05, 0.1, math.nextafter(0.1, 1), 1.0])


@st.composite
def tables(draw):
    positions, n_layers = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    return [
        Score(p, layer, draw(few), draw(few), draw(few)) for p in range(-positions, 0) for layer in range(n_layers)
    ], n_layers


@given(tables(), st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from([-1.0, 0.0]), st.sampled_from([0.0, 0.2, 0.5]))
@settings(deadline=None, max_examples=300)
def test_any_table_is_judged_as_the_official_code_does(table, max_kl, min_induce, prune):
    scores, n_layers = table
    verdicts = choose(scores, n_layers, limits=Limits(max_kl=max_kl, min_induce=min_induce, prune_layers=prune))
    official = official_choice(scores, n_layers, max_kl, min_induce, prune)
    kept = [(s.position, s.layer) for s in verdicts.scores if s.verdict in (SELECTED, SURVIVOR)]
    assert sorted(kept) == sorted(official)
    assert verdicts.survivors == len(official)
    known = {SELECTED, SURVIVOR, NOT_A_NUMBER, LATE_LAYER, HIGH_KL, LOW_INDUCE}
    assert {s.verdict for s in verdicts.scores} <= known  # every loser has a verdict
    assert [(s.position, s.layer) for s in verdicts.scores] == [(s.position, s.layer) for s in scores]
    if official:
        assert (verdicts.chosen.position, verdicts.chosen.layer) == official[0]
        assert sum(s.verdict == SELECTED for s in verdicts.scores) == 1
    else:
        with pytest.raises(NoDirection):
            _ = verdicts.chosen


# --- reading recorded scores ------------------------------------------------------------------------------------


def test_official_and_own_files_read_the_same(tmp_path):
    (tmp_path / "official.json").write_text(
        '[{"position": -2, "layer": 5, "refusal_score": NaN, "steering_score": 1.5, "kl_div_score": 0.25},\n'
        ' {"position": -1, "layer": 5, "refusal_score": -1.0, "steering_score": 2, "kl_div_score": 0.0}]'
    )
    (tmp_path / "own.jsonl").write_text(
        '{"position": -2, "layer": 5, "bypass": null, "induce": 1.5, "kl": 0.25, "verdict": "not a number"}\n'
        '{"position": -1, "layer": 5, "bypass": -1.0, "induce": 2, "kl": 0.0, "verdict": "selected"}\n'
    )
    official, own = read_scores(tmp_path / "official.json"), read_scores(tmp_path / "own.jsonl")
    assert str(official) == str(own)  # as text, because NaN is not equal to itself
    assert math.isnan(own[0].bypass)
    assert (own[1].position, own[1].layer, own[1].bypass, own[1].induce, own[1].kl) == (-1, 5, -1.0, 2.0, 0.0)


def test_no_difference_is_read_back_and_other_verdicts_are_given_anew(tmp_path):
    row = {"position": -1, "bypass": None, "induce": None, "kl": None}
    rows = [row | {"layer": 0, "verdict": NO_DIFFERENCE}, row | {"layer": 1, "verdict": SELECTED}]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [s.verdict for s in read_scores(tmp_path / "own.jsonl")] == [NO_DIFFERENCE, ""]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[",
        b"[1, 2]",
        b"[[1]]",
        b'{"a": 1}',
        b'{"position": -1}\n',
        b"position,layer\n-1,3\n",
        b'[{"position": -1, "layer": "five", "refusal_score": 0, "steering_score": 0, "kl_div_score": 0}]',
        b'[{"position": -1, "layer": 5, "refusal_score": [], "steering_score": 0, "kl_div_score": 0}]',
        b'[{"position": -1, "layer": 5, "refusal_score": 0, "steering_score": 0}]',
        b"[" * 100_000,
    ],
)
def test_a_file_without_scores_is_bad_input_that_says_what_was_expected(tmp_path, content):
    (tmp_path / "scores.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"scores\.json does not hold candidate scores.*Expected our selection\.jsonl"):
        read_scores(tmp_path / "scores.json")


def test_an_unreadable_file_is_bad_input(tmp_path):
    (tmp_path / "latin.json").write_bytes(b"[\xe4]")
    for path in (tmp_path / "absent.json", tmp_path / "latin.json", tmp_path):
        with pytest.raises(BadInput, match="Cannot read the scores"):
            read_scores(path)


def test_scores_that_do_not_fit_the_model_are_bad_input():
    with pytest.raises(BadInput, match="list is empty"):
        choose([], 10)
    with pytest.raises(BadInput, match=r"layer 10, but the model has 10 layers \(0 to 9\)"):
        choose([one(), one(layer=10)], 10)
    with pytest.raises(BadInput, match="layer -1"):
        choose([one(layer=-1)], 10)


@pytest.mark.parametrize(
    "limits",
    [{"prune_layers": 1.0}, {"prune_layers": -0.1}, {"prune_layers": NAN}, {"max_kl": NAN}, {"min_induce": NAN}],
)
def test_limits_that_mean_nothing_are_bad_settings(limits):
    with pytest.raises(BadSetting, match=next(iter(limits))):
        Limits(**limits)


def test_a_fast_sweeps_table_is_not_chosen_from_under_other_limits(tmp_path):
    path = tmp_path / "selection.jsonl"
    rows = [
        {"position": -1, "layer": 0, "bypass": None, "induce": -1.0, "kl": None, "verdict": NOT_SCORED},
        {"position": -1, "layer": 1, "bypass": -1.0, "induce": 1.0, "kl": 0.0, "verdict": SELECTED},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert choose(read_scores(path), 2, limits=Limits(prune_layers=0.0)).chosen.layer == 1
    with pytest.raises(BadInput, match=r"1 of its 2 candidates were not scored.*--sweep full"):
        read_complete_scores(path)
