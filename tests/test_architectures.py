"""Families as data: what is covered is found whole, what is not is a loud error."""

import pytest
from torch import nn
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

import tiny
from refusal.architectures import blocks, find, writers
from refusal.errors import UnsupportedModel


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_has_its_row_and_every_writer_is_found(family):
    network = tiny.network(family)
    row = find(network)
    weights = [writer.name for writer in writers(network, row) if not writer.name.endswith("bias")]
    assert weights == ["model.embed_tokens.weight"] + [
        f"model.layers.{layer}.{name}.weight"
        for layer in range(tiny.LAYERS)
        for name in ("self_attn.o_proj", "mlp.down_proj")
    ]
    assert blocks(network, row) == list(network.model.layers)
    for writer in writers(network, row):
        assert network.get_parameter(writer.name).shape[writer.axis] == tiny.D, writer.name


def test_an_unknown_architecture_is_named_with_the_covered_ones():
    network = OpenAIGPTLMHeadModel(OpenAIGPTConfig(n_embd=8, n_layer=1, n_head=2, vocab_size=20, n_positions=16))
    with pytest.raises(UnsupportedModel, match=r"'openai-gpt' is not covered.*apertus, .*gemma, .*llama, .*zamba2"):
        find(network)


def test_a_network_without_a_config_is_unknown():
    with pytest.raises(UnsupportedModel, match="'unknown'"):
        find(nn.Linear(2, 2))


@pytest.mark.parametrize("place", ["", "model.layers.1.mlp", "model.layers.0.self_attn"])
def test_a_parameter_that_the_row_does_not_name_is_named(place):
    network = tiny.network()
    network.get_submodule(place).add_module("adapter", nn.Linear(tiny.D, tiny.D, bias=False))
    name = ".".join(filter(None, [place, "adapter.weight"]))
    with pytest.raises(UnsupportedModel, match=f"'{name}' of this 'llama' model"):
        find(network)


def test_a_norm_behind_a_writer_is_not_taken_for_a_reader():
    network = tiny.network()
    network.model.layers[0].add_module("post_feedforward_layernorm", nn.LayerNorm(tiny.D, bias=False))
    with pytest.raises(UnsupportedModel, match="post_feedforward_layernorm"):
        find(network)
