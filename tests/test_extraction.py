"""Means, differences and filtering: what counts, where it is read, and which way round."""

from copy import deepcopy

import pytest
import torch

import tiny
from refusal import engine, equations, extraction
from refusal.errors import TooFewPrompts
from refusal.extraction import encode, filter_prompts, mean_difference, projections, refusal_scores, resid_norm
from refusal.fingerprint import fingerprint
from refusal.prompts import Prompt

HARMFUL, HARMLESS = tiny.PROMPTS[:3], tiny.PROMPTS[2:]


def residuals(model, text) -> torch.Tensor:
    """resid_pre of every layer at the post-instruction positions `p l d`, by transformers."""
    states = torch.stack(hidden_states(model, text)[: model.n_layers])[:, -len(model.post_instruction) :]
    return states.transpose(0, 1).double()


@torch.no_grad()
def hidden_states(model, text) -> list[torch.Tensor]:
    """What transformers itself gives as hidden states, of a copy: it leaves hooks of its own behind."""
    network = deepcopy(model.network)
    out = network(torch.tensor([model.encode(text)]), output_hidden_states=True)
    return [state[0] for state in out.hidden_states]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_candidates_are_the_means_of_each_class_at_every_position_and_layer(family):
    model = tiny.shared(family)
    candidates = mean_difference(model, HARMFUL, HARMLESS)
    for kept, prompts in ((candidates.harmful, HARMFUL), (candidates.harmless, HARMLESS)):
        expected = torch.stack([residuals(model, text) for text in prompts]).mean(0)
        assert kept.dtype == torch.float64
        assert kept.shape == (5, tiny.LAYERS, tiny.D)
        assert torch.allclose(kept, expected, atol=1e-5)
    assert candidates.tokens == tiny.POST_INSTRUCTION
    own = {"model": model.name, "fingerprint": fingerprint(model)}
    assert candidates.origin == {**own, "harmful": 3, "harmless": 3}


def test_nothing_differs_at_layer_0_and_something_does_behind_it():
    candidates = mean_difference(tiny.shared(), HARMFUL, HARMLESS)
    assert not any(candidates.differs(position, 0) for position in candidates.positions)
    assert all(candidates.differs(position, 1) for position in candidates.positions)


def test_candidates_are_harmful_minus_harmless():
    model = tiny.shared()
    there, back = mean_difference(model, HARMFUL, HARMLESS), mean_difference(model, HARMLESS, HARMFUL)
    assert torch.equal(there.differences, -back.differences)
    assert there.differences[:, 1:].abs().max() > 0.1


def test_the_order_of_prompts_does_not_matter_and_prompts_may_be_texts():
    model = tiny.shared()
    one = mean_difference(model, HARMFUL, HARMLESS)
    other = mean_difference(model, [Prompt(text) for text in reversed(HARMFUL)], HARMLESS)
    assert torch.allclose(one.harmful, other.harmful, atol=1e-6)


def test_means_are_summed_in_float64():
    model = tiny.shared()
    many = mean_difference(model, ["Why?"] * 60, HARMLESS)
    # At layer 0 both classes hold the same float32 vectors: 60 of them summed in float32 are off by about 1e-6.
    assert many.differences[:, 0].abs().max() < 1e-12


@pytest.mark.parametrize("fits", [1, 2])
def test_memory_that_runs_out_changes_no_mean(monkeypatch, fits):
    model = tiny.shared()
    direction = tiny.direction(model)
    expected = (
        mean_difference(model, tiny.PROMPTS, HARMLESS).harmful,
        projections(model, tiny.PROMPTS, direction=direction),
    )
    real = engine.forward

    def forward(m, rows):
        logits = real(m, rows)  # hooks have kept what passed before memory ends
        if len(rows) > fits:
            raise torch.OutOfMemoryError("no memory left")
        return logits

    monkeypatch.setattr(engine, "forward", forward)
    assert torch.allclose(mean_difference(model, tiny.PROMPTS, HARMLESS).harmful, expected[0], atol=1e-6)
    assert torch.allclose(projections(model, tiny.PROMPTS, direction=direction), expected[1], atol=1e-5)


def test_extraction_leaves_no_hook_behind():
    model = tiny.shared()
    mean_difference(model, HARMFUL, HARMLESS)
    assert tiny.hook_count(model.network) == 0


def test_an_empty_list_is_refused():
    with pytest.raises(TooFewPrompts, match="list of prompts is empty"):
        mean_difference(tiny.shared(), [], HARMLESS)


def test_encode_is_the_models_own():
    model = tiny.shared()
    assert encode(model, ["Why?", Prompt("How?")]) == [model.encode("Why?"), model.encode("How?")]


def test_scores_are_the_metric_of_each_prompts_next_token():
    model = tiny.shared()
    token = torch.tensor([40])
    expected = [
        equations.refusal_metric(model.network(torch.tensor([model.encode(text)])).logits[0, -1], token).item()
        for text in tiny.PROMPTS
    ]
    assert refusal_scores(model, tiny.PROMPTS, tokens=token).tolist() == pytest.approx(expected, abs=1e-4)


def scored(monkeypatch, scores):
    monkeypatch.setattr(
        extraction, "refusal_scores", lambda *_args, **_kwargs: torch.tensor(scores, dtype=torch.float64)
    )
    return [Prompt(str(i)) for i in range(len(scores))]


@pytest.mark.parametrize(("refused", "kept"), [(True, ("0", "3")), (False, ("1", "4"))])
def test_filtering_keeps_what_the_model_treats_as_its_class_says(monkeypatch, refused, kept):
    prompts = scored(monkeypatch, [0.5, -0.5, 0.0, 3.0, -1e-9])  # exactly zero is neither
    found = filter_prompts(tiny.shared(), prompts, tokens=torch.tensor([40]), refused=refused)
    assert tuple(prompt.instruction for prompt in found) == kept


@pytest.mark.parametrize(("refused", "word"), [(True, "harmful"), (False, "harmless")])
def test_filtering_that_leaves_too_few_says_how_many_and_what_to_do(monkeypatch, refused, word):
    prompts = scored(monkeypatch, [0.0, 1.0, -1.0])
    with pytest.raises(TooFewPrompts, match=f"left 1 of 3 {word} prompts.*--refusal-tokens"):
        filter_prompts(tiny.shared(), prompts, tokens=torch.tensor([40]), refused=refused)


@pytest.mark.parametrize("position", [-5, -2, -1])
def test_projections_are_of_the_directions_own_position_at_every_layer(position):
    model = tiny.shared()
    direction = tiny.direction(model)
    direction = type(direction)(direction.vector, 1, position)
    expected = torch.stack([residuals(model, text)[position] @ direction.unit for text in tiny.PROMPTS])
    found = projections(model, tiny.PROMPTS, direction=direction)
    assert found.shape == (len(tiny.PROMPTS), tiny.LAYERS)
    assert torch.allclose(found.double(), expected, atol=1e-4)


def test_the_norm_of_the_stream_leaves_padding_out():
    model = tiny.shared()
    lengths = [hidden_states(model, text)[1].norm(dim=-1) for text in tiny.PROMPTS]
    expected = float(torch.cat(lengths).mean())
    assert resid_norm(model, tiny.PROMPTS, layer=1) == pytest.approx(expected, rel=1e-5)
