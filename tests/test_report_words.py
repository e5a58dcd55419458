"""Sentences at the top of the page: true of the numbers, whatever these are."""

from dataclasses import replace

import pytest

import run_folder
from refusal.findings import read_findings
from refusal.report.cautions import cautions
from refusal.report.done import steps
from refusal.report.headline import headline
from refusal.report.provenance import asked
from refusal.statistics import Rate

N = run_folder.N


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return read_findings(run_folder.build(tmp_path_factory.mktemp("run")))


def rate(refused: int, n: int, *, left: int = 0):
    return Rate(refused, n, left).record("refused")


def with_rows(found, name, **rows):
    """Return the findings with some conditions of a set changed, or without them (None)."""
    changed = {kind: row for kind, row in {**found.results[name], **rows}.items() if row is not None}
    return replace(found, results={**found.results, name: changed})


def said(sentences) -> str:
    return " ".join(sentences).replace("\N{NO-BREAK SPACE}", " ")


def test_what_is_not_shown_is_not_denied(found):
    text = said(headline(with_rows(found, "harmful", ablation=rate(40, 40)).results))
    assert "is not shown to change refusals of 40 held-out harmful prompts: 100 % without it, 100 % [91.2, 100]" in text


def test_answers_that_could_not_be_judged_are_named_where_the_rates_are(found):
    changed = with_rows(found, "harmful", none=rate(36, 36, left=4), ablation=rate(0, 10, left=30))
    text = said(headline(changed.results))
    assert "takes refusals of held-out harmful prompts from 100 % of 36 to 0 % [0, 27.8] of 10" in text
    warned = said(cautions(changed))
    assert "undetermined, most of them with directional ablation: 30 of 40" in warned
    assert "Only 10 harmful prompts of 40 were tested with an answer that could be judged" in warned


@pytest.mark.parametrize(("kind", "which"), [("none", "without it"), ("ablation", "with it")])
def test_of_nothing_judged_nothing_is_said(found, kind, which):
    changed = with_rows(found, "harmful", **{kind: rate(0, 0, left=N)})
    text = said(headline(changed.results)[:1])
    assert f"no answer to harmful prompts {which} could be judged" in text
    assert "–" not in text
    assert "overlap" not in said(one for one in cautions(changed) if "harmful" in one)


@pytest.mark.parametrize(
    ("name", "kind", "before", "after"), [("harmful", "ablation", 5, 38), ("harmless", "addition", 30, 2)]
)
def test_an_effect_the_other_way_round_is_warned_of(found, name, kind, before, after):
    warned = said(cautions(with_rows(found, name, none=rate(before, N), **{kind: rate(after, N)})))
    assert f"does the opposite of what it is for: refusals of {name} prompts go from" in warned
    assert "the opposite" not in said(cautions(found))


def test_a_run_without_controls_says_so_and_claims_none(found):
    bare = with_rows(found, "harmful", random_ablation=None, random_addition=None, random=None, weights=None)
    bare = with_rows(bare, "harmless", random_addition=None, random=None, weights=None)
    assert "No control was measured on harmful prompts" in said(cautions(bare))
    assert "No control was measured" not in said(cautions(found))
    assert "control directions" in said(steps(found))
    assert "from the weights" in said(steps(found))
    assert "control" not in said(steps(bare))
    assert "weights" not in said(steps(bare))


def test_the_cause_of_other_texts_is_named_only_where_the_rates_allow_it(found):
    same = {"harmful": {"identical": 3, "n": N}}
    near = with_rows(found, "harmful", weights=rate(1, N), ablation=rate(1, N))
    far = with_rows(found, "harmful", weights=rate(30, N), ablation=rate(1, N))
    for changed, cause in ((near, "rounding can do that"), (far, "that is more than rounding")):
        with_texts = replace(changed, results={**changed.results, "weights_equal_ablation": same})
        assert f"3 of {N} harmful prompts: " in said(cautions(with_texts))
        assert cause in said(cautions(with_texts))


def test_commands_and_facts_say_what_is_needed_and_hide_nothing(found):
    config = {"architecture": {"value": "own row.toml", "given": True}, "system": {"value": "Be brief.", "given": True}}
    made = asked(replace(found, record={**found.record, "model": "a\u202eb", "config": config}))
    commands = dict(made["commands"])
    assert commands["ask the model yourself (without the run's system prompt)"].endswith(
        "--architecture 'own row.toml'"
    )
    assert all("\u202e" not in command for command in commands.values())
    assert "a\\u202eb" in commands["compute every number of this page again from its records"] or "a\\u202eb" in said(
        commands.values()
    )
