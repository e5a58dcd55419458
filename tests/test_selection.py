"""Three scores per candidate, each against its definition, and the choice."""

import pytest
import torch

import tiny
from refusal import equations
from refusal.direction import Candidates
from refusal.errors import NoDirection, TooFewPrompts
from refusal.extraction import mean_difference
from refusal.interventions import ablate, add
from refusal.refusal_tokens import RefusalTokens, find_refusal_tokens
from refusal.rule import NO_DIFFERENCE, SELECTED, Limits, choose
from refusal.selection import prepare, score_candidate, select_direction, sweep

HARMFUL, HARMLESS = tiny.PROMPTS[:2], tiny.PROMPTS[2:]
ANYTHING = Limits(max_kl=float("inf"), min_induce=-100.0, prune_layers=0.0)


@pytest.fixture(scope="module")
def case():
    model = tiny.shared()
    tokens = find_refusal_tokens(model, HARMFUL, HARMLESS, given=[40, 7])
    candidates = mean_difference(model, ["Ab", "Cde"], ["Fgh", "!"])
    return model, candidates, prepare(model, HARMFUL, HARMLESS, tokens=tokens)


def logits(model, prompts):
    with torch.no_grad():
        return [model.network(torch.tensor([model.encode(text)])).logits[0, -1] for text in prompts]


def metric(rows, tokens):
    return sum(equations.refusal_metric(row, tokens.tensor).item() for row in rows) / len(rows)


@pytest.mark.parametrize(("position", "layer"), [(-5, 1), (-1, 2)])
def test_scores_are_bypass_on_harmful_induce_on_harmless_and_kl_from_the_baseline(case, position, layer):
    model, candidates, validation = case
    direction = candidates.at(position, layer)
    before = logits(model, HARMLESS)
    with ablate(model, direction):
        bypassed, after = logits(model, HARMFUL), logits(model, HARMLESS)
    with add(model, direction):
        induced = logits(model, HARMLESS)
    score = score_candidate(model, candidates, position, layer, validation=validation)
    kl = sum(equations.kl_divergence(p, q).item() for p, q in zip(before, after, strict=True)) / len(before)
    assert (score.position, score.layer, score.verdict) == (position, layer, "")
    assert score.bypass == pytest.approx(metric(bypassed, validation.tokens), abs=1e-3)
    assert score.induce == pytest.approx(metric(induced, validation.tokens), abs=1e-3)
    assert score.kl == pytest.approx(kl, rel=1e-3)
    assert score.kl > 0.01


def test_the_baseline_is_the_untouched_models(case):
    model, _, validation = case
    assert validation.baseline == {
        "harmful": pytest.approx(metric(logits(model, HARMFUL), validation.tokens), abs=1e-3),
        "harmless": pytest.approx(metric(logits(model, HARMLESS), validation.tokens), abs=1e-3),
    }


def test_a_sweep_enumerates_positions_then_layers_and_says_where_nothing_differs(case):
    model, candidates, validation = case
    scores = sweep(model, candidates, validation=validation)
    assert [(s.position, s.layer) for s in scores] == [(p, layer) for p in range(-5, 0) for layer in range(3)]
    assert [s.verdict for s in scores] == [NO_DIFFERENCE, "", ""] * 5
    assert all(s.bypass != s.bypass for s in scores if s.layer == 0)
    assert tiny.hook_count(model.network) == 0


def test_a_resumed_sweep_scores_only_what_is_missing_and_gives_the_same(case):
    model, candidates, validation = case
    whole, reported = sweep(model, candidates, validation=validation), {}
    again = sweep(
        model, candidates, validation=validation, skip=dict(enumerate(whole[:12])), report=reported.__setitem__
    )
    assert again[:12] == whole[:12]
    assert set(reported) == {12, 13, 14}
    assert again[13] == whole[13]


def test_selection_is_the_rule_on_the_sweep_and_best_is_that_candidate(case):
    model, candidates, validation = case
    selection = select_direction(model, candidates, HARMFUL, HARMLESS, tokens=validation.tokens, limits=ANYTHING)
    expected = choose(sweep(model, candidates, validation=validation), 3, limits=ANYTHING)
    assert [s.verdict for s in selection.scores] == [s.verdict for s in expected.scores]
    chosen = expected.chosen
    assert chosen.bypass == min(s.bypass for s in expected.scores if s.layer)
    best = selection.best
    assert (best.position, best.layer) == (chosen.position, chosen.layer)
    assert torch.equal(best.vector, candidates.at(chosen.position, chosen.layer).vector)
    assert selection.tokens == validation.tokens


def test_the_order_of_validation_prompts_changes_no_score(case):
    model, candidates, validation = case
    other = prepare(model, HARMFUL[::-1], HARMLESS[::-1], tokens=validation.tokens)
    one, two = (score_candidate(model, candidates, -2, 1, validation=v) for v in (validation, other))
    assert (one.bypass, one.induce, one.kl) == pytest.approx((two.bypass, two.induce, two.kl), abs=1e-4)


def test_when_nothing_passes_asking_for_the_best_says_why(case):
    model, candidates, validation = case
    none = Limits(max_kl=-1.0)
    selection = select_direction(model, candidates, HARMFUL, HARMLESS, tokens=validation.tokens, limits=none)
    assert SELECTED not in {s.verdict for s in selection.scores}
    with pytest.raises(NoDirection, match=r"None of 15 candidates.*5 no difference"):
        _ = selection.best


def test_means_that_are_the_same_everywhere_choose_nothing(case):
    model, candidates, validation = case
    same = Candidates(candidates.harmful, candidates.harmful.clone(), candidates.tokens)
    selection = select_direction(model, same, HARMFUL, HARMLESS, tokens=validation.tokens, limits=ANYTHING)
    with pytest.raises(NoDirection, match="15 no difference"):
        _ = selection.best


def test_validation_prompts_are_needed(case):
    model, candidates, _ = case
    with pytest.raises(TooFewPrompts, match="empty"):
        select_direction(model, candidates, HARMFUL, [], tokens=RefusalTokens((40,), ("I",), "test"))
