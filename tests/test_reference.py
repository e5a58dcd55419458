"""The package against an independent plain-loop reading of the paper (reference.py), on the bundled model."""

import pytest
import torch

import reference
from refusal.extraction import filter_prompts, mean_difference
from refusal.refusal_tokens import find_refusal_tokens
from refusal.rule import SELECTED, Limits, choose
from refusal.selection import select_direction

N_TRAIN, N_VAL = 24, 4


@pytest.fixture(scope="module")
def prompts(harmful, harmless):
    return harmful.train[:N_TRAIN], harmless.train[:N_TRAIN], harmful.val[:N_VAL], harmless.val[:N_VAL]


@pytest.fixture(scope="module")
def ours(bundled, prompts):
    """Filtered prompts, candidates and selection by the package."""
    tokens = find_refusal_tokens(bundled, prompts[2], prompts[3])
    kept = [
        filter_prompts(bundled, some, tokens=tokens.tensor, refused=refused)
        for some, refused in zip(prompts, (True, False, True, False), strict=True)
    ]
    candidates = mean_difference(bundled, kept[0], kept[1])
    return kept, candidates, select_direction(bundled, candidates, kept[2], kept[3], tokens=tokens)


@pytest.fixture(scope="module")
def theirs(bundled, prompts, ours):
    """The same by plain loops: filtered texts, both means, and a row of scores a candidate."""
    refusal = list(ours[2].tokens.ids)
    plain = reference.Plain(bundled.network, bundled.tokenizer)
    texts = [[prompt.instruction for prompt in some] for some in prompts]
    kept = [
        reference.keep(plain, some, refusal, refused=refused)
        for some, refused in zip(texts, (True, False, True, False), strict=True)
    ]
    means = [reference.class_mean(plain, some, 5) for some in kept[:2]]
    harmless = dict(zip(kept[3], reference.last_logits(plain, kept[3]), strict=True))
    rows = []
    for position in range(-5, 0):
        for layer in range(1, bundled.n_layers):
            r = (means[0] - means[1])[position, layer]
            rows.append((position, layer, *reference.scores(plain, r, layer, kept[2], harmless, refusal)))
    return kept, means, rows


def test_the_same_prompts_pass_the_filter(ours, theirs):
    assert [[p.instruction for p in some] for some in ours[0]] == theirs[0]
    assert all(len(some) > 2 for some in theirs[0])


def test_the_same_candidates(ours, theirs):
    candidates, (harmful, harmless) = ours[1], theirs[1]
    assert torch.allclose(candidates.harmful, harmful, rtol=1e-4, atol=1e-4)
    assert torch.allclose(candidates.harmless, harmless, rtol=1e-4, atol=1e-4)
    difference = harmful - harmless
    assert float((candidates.differences - difference).norm() / difference.norm()) < 1e-5


def test_the_same_three_scores_of_every_candidate(ours, theirs):
    ours_by_place = {(s.position, s.layer): (s.bypass, s.induce, s.kl) for s in ours[2].scores if s.layer}
    theirs_by_place = {row[:2]: row[2:] for row in theirs[2]}
    assert ours_by_place.keys() == theirs_by_place.keys()
    for place, expected in theirs_by_place.items():
        assert ours_by_place[place] == pytest.approx(expected, abs=1e-3), place
    spread = [max(column) - min(column) for column in zip(*theirs_by_place.values(), strict=True)]
    assert min(spread) > 0.1  # candidates differ by far more than that


def test_layer_0_has_no_difference_in_either(ours, theirs):
    harmful, harmless = theirs[1]
    assert (harmful[:, 0] - harmless[:, 0]).abs().max() < 1e-6
    assert {s.verdict for s in ours[2].scores if s.layer == 0} == {"no difference"}


@pytest.mark.parametrize(("max_kl", "min_induce"), [(0.1, 0.0), (1.0, -5.0), (0.2, -100.0), (100.0, -100.0)])
def test_the_same_choice(bundled, ours, theirs, max_kl, min_induce):
    # With so few prompts nothing may pass the official limits; then both have to say so.
    limits = Limits(max_kl=max_kl, min_induce=min_induce)
    scores = choose(ours[2].scores, bundled.n_layers, limits=limits).scores
    found = next(((s.position, s.layer) for s in scores if s.verdict == SELECTED), None)
    assert found == reference.choice(theirs[2], bundled.n_layers, max_kl=max_kl, min_induce=min_induce)
    assert found is not None or (max_kl, min_induce) != (100.0, -100.0)
