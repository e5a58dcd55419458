"""Part of a network: started at a block it does the same as from the beginning, and where it cannot, it says so."""

import pytest
import torch

import tiny
import zoo
from refusal import engine, partial
from refusal.interventions import add, capture

CANNOT = {"gemma3n_text"}  # its blocks hand on several streams and take an input per layer


def tokens(model):
    return [model.encode(text) for text in tiny.PROMPTS]


@pytest.mark.parametrize("layer", range(tiny.LAYERS))
def test_started_at_a_layer_with_an_addition_there_the_logits_are_those_of_the_whole_network(layer):
    model = tiny.shared()
    stream, logits = partial.record(model, tokens(model))
    order, direction = [3, 0, 1], tiny.direction(model, layer=layer)
    with add(model, direction):
        whole = engine.forward(model, [tokens(model)[i] for i in order])
    with stream.start_at(model, layer, order), add(model, direction), capture(model) as kept:
        part = engine.forward(model, [tokens(model)[i] for i in order])
    assert torch.allclose(part, whole, atol=1e-4)
    assert (part - logits[order]).abs().max() > 0.1
    assert len(kept["resid_pre"]) == tiny.LAYERS  # the hooks of blocks that stand aside still run
    assert tiny.hook_count(model.network) == 0
    assert torch.allclose(engine.last_logits(model, tokens(model)), logits, atol=1e-4)


def test_blocks_below_are_not_computed():
    model, ran = tiny.shared(), []
    stream, _ = partial.record(model, tokens(model))
    handles = [
        block.mlp.register_forward_hook(lambda *_args, number=number: ran.append(number))
        for number, block in enumerate(model.network.model.layers)
    ]
    try:
        with stream.start_at(model, 2, [0]):
            engine.forward(model, [tokens(model)[0]])
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [2]


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_every_covered_type_but_one_can_be_started_half_way(kind):
    model = zoo.chat_model(kind)
    stream, logits = partial.record(model, tokens(model)[:3])
    assert bool(stream.problem) == (kind in CANNOT), stream.problem
    assert torch.allclose(logits, engine.last_logits(model, tokens(model)[:3]), rtol=1e-4, atol=1e-4)


def test_a_network_whose_blocks_share_more_than_the_stream_is_found_out(monkeypatch):
    model = tiny.chat_model()
    first, last = model.network.model.layers[0], model.network.model.layers[2]
    seen = {}
    handles = [
        first.mlp.register_forward_hook(lambda _m, _a, out: seen.update(out=out)),
        last.mlp.register_forward_hook(lambda _m, _a, out: out + seen.pop("out", 0.0)),
    ]
    stream, _ = partial.record(model, tokens(model)[:3])
    for handle in handles:
        handle.remove()
    assert "started at layer 1" in stream.problem
    assert stream.resid == ()


def test_a_pass_can_end_before_a_layer():
    model = tiny.shared()
    for layer in (0, 2):
        with capture(model) as kept, partial.stop_before(model, layer):
            engine.forward(model, tokens(model)[:1])
            pytest.fail("the pass went on")
        assert len(kept["resid_pre"]) == layer + 1
    assert torch.isfinite(engine.forward(model, tokens(model)[:1])).all()
