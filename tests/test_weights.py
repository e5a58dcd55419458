"""The weight edit does what ablation does, on every family; tied embeddings and biases included."""

import pytest
import torch

import tiny
from refusal import engine, equations
from refusal.architectures import writers
from refusal.direction import Direction
from refusal.errors import BadInput, UnsupportedModel
from refusal.generation import generate
from refusal.interventions import ablate, add, capture
from refusal.model import load_model
from refusal.weights import orthogonalize

FAMILIES = pytest.mark.parametrize("family", tiny.FAMILIES)
TIED = [family for family, (_, _, tied) in tiny.FAMILIES.items() if tied]
EPS = torch.finfo(torch.float32).eps


def logits(model):
    return engine.last_logits(model, [model.encode(text) for text in tiny.PROMPTS])


def state(model):
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


@FAMILIES
def test_edited_weights_give_the_logits_of_ablation(family):
    model = tiny.shared(family)
    direction = tiny.direction(model)
    base, edited = logits(model), logits(orthogonalize(model, direction))
    with ablate(model, direction):
        hooked = logits(model)
    # Rounding of each of the blocks' sums, over d_model terms of the logits' size.
    tolerance = 16 * EPS * tiny.LAYERS * tiny.D**0.5 * float(hooked.abs().max())
    assert (base - hooked).abs().max() > 1000 * tolerance  # the intervention does something
    assert torch.allclose(edited, hooked, rtol=0, atol=tolerance)


@FAMILIES
def test_edited_weights_write_nothing_along_the_direction(family):
    model = tiny.shared(family)
    direction = tiny.direction(model)
    edited = orthogonalize(model, direction)
    with capture(edited, ("resid_pre", "resid_mid", "resid_post")) as kept:
        logits(edited)
    for layers in kept.values():
        for x in layers:
            left = equations.project(x, direction.unit).abs().max()
            assert left <= 16 * EPS * tiny.LAYERS * tiny.D**0.5 * x.norm(dim=-1).max()


@FAMILIES
def test_the_original_is_left_alone(family):
    model = tiny.chat_model(family)
    before, said = state(model), logits(model)
    edited = orthogonalize(model, tiny.direction(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    assert torch.equal(logits(model), said)
    assert model.network.config.tie_word_embeddings == tiny.FAMILIES[family][2]
    shared = {p.data_ptr() for p in model.network.parameters()} & {p.data_ptr() for p in edited.network.parameters()}
    assert not shared


@FAMILIES
def test_only_what_writes_to_the_stream_changes(family):
    model = tiny.chat_model(family)
    before = state(model)
    edited = orthogonalize(model, tiny.direction(model))
    changed = {name for name, tensor in edited.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {writer.name for writer in writers(edited.network, model.architecture)}
    if family == "llama with biases":
        assert "model.layers.0.self_attn.o_proj.bias" in changed


@pytest.mark.parametrize("family", TIED)
def test_tied_embeddings_are_untied_first(family):
    model = tiny.chat_model(family)
    head = model.network.lm_head.weight
    assert head is model.network.model.embed_tokens.weight
    before = head.detach().clone()
    edited = orthogonalize(model, tiny.direction(model)).network
    assert torch.equal(edited.lm_head.weight, before)
    assert not torch.allclose(edited.model.embed_tokens.weight, before, atol=0.1)
    assert edited.config.tie_word_embeddings is False


@pytest.mark.parametrize("family", ["llama", *TIED])
def test_an_edited_model_saved_and_loaded_is_the_same_model(family, tmp_path):
    edited = orthogonalize(tiny.shared(family), tiny.direction(tiny.shared(family)))
    edited.network.save_pretrained(tmp_path)
    edited.tokenizer.save_pretrained(tmp_path)
    # Bit by bit in the weights, not the logits: where a file's tensors lie in memory changes how sums are rounded.
    loaded = load_model(tmp_path, device="cpu")
    there, here = loaded.network.state_dict(), edited.network.state_dict()
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in here)
    assert torch.allclose(logits(loaded), logits(edited), rtol=0, atol=1e-5)


@FAMILIES
def test_in_place_edits_the_given_model(family):
    model = tiny.chat_model(family)
    expected = logits(orthogonalize(model, tiny.direction(model)))
    network = model.network
    edited = orthogonalize(model, tiny.direction(model), in_place=True)
    assert edited is model
    assert edited.network is network
    assert torch.equal(logits(model), expected)


def test_editing_twice_is_editing_once():
    model = tiny.shared()
    once = orthogonalize(model, tiny.direction(model))
    twice = orthogonalize(once, tiny.direction(model))
    assert torch.allclose(logits(twice), logits(once), atol=1e-4)


@FAMILIES
def test_edited_weights_complete_prompts_token_by_token_as_ablation_does(family):
    model = tiny.shared(family)
    direction = tiny.direction(model)
    with ablate(model, direction):
        hooked = generate(model, tiny.PROMPTS, max_new_tokens=12)
    assert generate(orthogonalize(model, direction), tiny.PROMPTS, max_new_tokens=12) == hooked
    assert generate(model, tiny.PROMPTS, max_new_tokens=12) != hooked


def test_bfloat16_weights_keep_their_dtype_and_lose_the_direction():
    model = load_model(tiny.network().bfloat16(), tiny.tokenizer())
    direction = tiny.direction(model)
    edited = orthogonalize(model, direction)
    unit = direction.unit.float()
    for writer in writers(edited.network, edited.architecture):
        assert edited.network.get_parameter(writer.name).dtype == torch.bfloat16
        left, was = (
            equations.project(m.network.get_parameter(writer.name).movedim(writer.axis, -1), unit).norm()
            for m in (edited, model)
        )
        assert left < 0.02 * was, writer.name  # what rounding to 8 bits leaves


def test_a_copy_made_inside_a_with_block_carries_no_intervention():
    model = tiny.chat_model("llama")
    direction = tiny.direction(model)
    with ablate(model, direction):
        edited = orthogonalize(model, direction)
    assert tiny.hook_count(edited.network) == 0
    assert tiny.hook_count(model.network) == 0


def test_a_quantized_writer_is_refused():
    model = tiny.chat_model("llama")
    module = model.network.get_submodule("model.layers.1.mlp.down_proj")
    module.weight = torch.nn.Parameter(module.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(UnsupportedModel, match=r"layers\.1\.mlp\.down_proj"):
        orthogonalize(model, tiny.direction(model))


@pytest.mark.parametrize("width", [1, 7])
def test_a_direction_of_another_model_is_refused(width):
    model = tiny.chat_model("llama")
    foreign = Direction(torch.ones(width), 1, -1)
    for enter in (lambda: ablate(model, foreign), lambda: add(model, foreign)):
        with pytest.raises(BadInput, match=f"{width} components"), enter():
            pass
    with pytest.raises(BadInput, match=f"{width} components"):
        orthogonalize(model, foreign)
