"""Block by block from disk: the whole model's numbers, every block read once a pass, and loud where it cannot be."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.llama import modeling_llama

import small_runs
import tiny
import zoo
from refusal import engine, layerwise, pipeline
from refusal.direction import Direction
from refusal.errors import BadInput, BadSetting, Unavailable, UnsupportedModel
from refusal.extraction import encode, filter_prompts, mean_difference
from refusal.interventions import ablate
from refusal.layerwise import kept, on_disk
from refusal.model import load_model
from refusal.prompts import Prompt
from refusal.refusal_tokens import RefusalTokens
from refusal.rule import NO_DIFFERENCE, Limits
from refusal.selection import select_direction
from refusal.sweep import prepare, sweep
from refusal.weights.safetensors_files import read_files
from small_runs import artifacts

HARMFUL, HARMLESS = tiny.PROMPTS[:3], (*tiny.PROMPTS[3:], "Why not?")
TOKENS = RefusalTokens((5, 9, 70), ("a", "b", "c"), "for a test")
ALL = Limits(max_kl=1e9, min_induce=-1e9, prune_layers=0.0)
KINDS = ("llama", "gemma2", "gpt2", "qwen2", "qwen3_moe", "gpt_oss", "mamba2", "zamba2")
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-4}  # float32, in batches of other shapes


def save(folder, network):
    network.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random llama on disk."""
    return save(tmp_path_factory.mktemp("llama"), tiny.network())


@pytest.fixture(scope="module")
def whole(folder):
    return load_model(folder, device="cpu")


@pytest.fixture(scope="module")
def candidates(whole):
    return mean_difference(whole, HARMFUL, HARMLESS)


@pytest.fixture(scope="module")
def scores(whole, candidates):
    return sweep(whole, candidates, validation=prepare(whole, HARMFUL, HARMLESS, tokens=TOKENS))


@pytest.fixture
def layered(folder):
    return layerwise.load_layered(folder, device="cpu")


@pytest.fixture
def reads(monkeypatch):
    """How often every tensor is read from disk."""
    counted = Counter()

    class Slice:
        def __init__(self, name, inner):
            self.name, self.inner = name, inner

        def __getitem__(self, index):
            counted[self.name] += 1
            return self.inner[index]

        def __getattr__(self, name):
            return getattr(self.inner, name)

    real = on_disk.safe_open

    class Opened:
        def __init__(self, *args, **kwargs):
            self.file = real(*args, **kwargs)

        def __enter__(self):
            self.file.__enter__()
            return SimpleNamespace(get_slice=lambda name: Slice(name, self.file.get_slice(name)))

        def __exit__(self, *args):
            self.file.__exit__(*args)

    monkeypatch.setattr(on_disk, "safe_open", Opened)
    return counted


def table(found):
    return torch.tensor([[s.bypass, s.induce, s.kl] for s in found if s.verdict != NO_DIFFERENCE], dtype=torch.float64)


def same(found, expected):
    """Hold two tables of scores together, and say that they are of something."""
    assert [(s.position, s.layer, s.verdict) for s in found] == [(s.position, s.layer, s.verdict) for s in expected]
    assert table(expected).std(0).min() > 1e-4
    torch.testing.assert_close(table(found), table(expected), **CLOSE)


# --- the same numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_scores_and_choice_are_those_of_the_whole_model(kind, tmp_path):
    path = save(tmp_path, zoo.network(kind))
    model, parts = load_model(path, device="cpu"), layerwise.load_layered(path, device="cpu")
    expected = mean_difference(model, HARMFUL, HARMLESS)
    found = layerwise.mean_difference(parts, HARMFUL, HARMLESS)
    torch.testing.assert_close(found.differences, expected.differences, **CLOSE)
    assert found.tokens == expected.tokens
    assert {**found.origin, "fingerprint": None} == {**expected.origin, "fingerprint": None}
    assert found.origin["fingerprint"] in (expected.origin["fingerprint"], None)
    sets = HARMFUL, HARMLESS
    one = select_direction(model, expected, *sets, tokens=TOKENS, limits=ALL)
    other = layerwise.select_direction(parts, expected, *sets, tokens=TOKENS, limits=ALL)
    same(other.scores, one.scores)
    assert (other.best.position, other.best.layer) == (one.best.position, one.best.layer)


def test_the_bundled_models_direction_is_the_same(bundled, harmful, harmless):
    sets = harmful.val[:2], harmless.val[:2]
    candidates = mean_difference(bundled, harmful.train[:8], harmless.train[:8])
    parts = layerwise.load_layered(device="cpu")
    found = layerwise.mean_difference(parts, harmful.train[:8], harmless.train[:8])
    torch.testing.assert_close(found.differences, candidates.differences, **CLOSE)
    assert found.origin == candidates.origin
    assert found.origin["fingerprint"]
    one = select_direction(bundled, candidates, *sets, limits=ALL)
    other = layerwise.select_direction(parts, candidates, *sets, limits=ALL)
    same(other.scores, one.scores)
    assert other.tokens == one.tokens
    assert (other.best.position, other.best.layer) == (one.best.position, one.best.layer)


@pytest.mark.parametrize("kind", ["gptj", "qwen3"])
def test_in_half_precision_the_logits_are_the_same_bits(kind, tmp_path):
    path = save(tmp_path, zoo.network(kind).bfloat16())
    settings: Any = {"device": "cpu", "dtype": "bfloat16"}
    model, parts = load_model(path, **settings), layerwise.load_layered(path, **settings)
    tokens = encode(model, tiny.PROMPTS)
    assert torch.equal(layerwise.remembered(parts, tiny.PROMPTS)(model, tokens), engine.last_logits(model, tokens))


def test_filtering_takes_one_pass_over_all_prompts(layered, whole, reads):
    prompts = [Prompt(text) for text in tiny.PROMPTS]
    logits = layerwise.remembered(layered, prompts)
    kept_by = [
        filter_prompts(layered.model, prompts, tokens=TOKENS.tensor, refused=refused, logits=logits)
        for refused in (False, False)
    ]
    assert kept_by[0] == kept_by[1] == filter_prompts(whole, prompts, tokens=TOKENS.tensor, refused=False)
    assert set(reads.values()) == {1}


def test_a_model_of_one_block_is_scored_too(tmp_path):
    path = save(tmp_path, tiny.network(layers=1))
    model, parts = load_model(path, device="cpu"), layerwise.load_layered(path, device="cpu")
    found = layerwise.mean_difference(parts, HARMFUL, HARMLESS)
    sums = found.harmful + torch.randn(found.harmful.shape, dtype=torch.float64)  # layer 0 differs in no candidate
    apart = replace(found, harmful=sums)
    validation = prepare(model, HARMFUL, HARMLESS, tokens=TOKENS)
    swept = layerwise.sweep(parts, apart, HARMFUL, HARMLESS, tokens=TOKENS)
    same(swept.scores, sweep(model, apart, validation=validation))
    assert swept.baseline == pytest.approx(validation.baseline, abs=1e-5)


# --- what is read, and what is kept ------------------------------------------------------------------------------


def test_a_pass_reads_each_tensor_of_the_blocks_once_and_nothing_else(layered, candidates, reads):
    inside = {name for names in layered.disk.names for name in names}
    assert len(inside) == tiny.LAYERS * 9
    layerwise.sweep(layered, candidates, HARMFUL, HARMLESS, tokens=TOKENS)
    assert reads == dict.fromkeys(inside, 1)
    reads.clear()
    layerwise.mean_difference(layered, HARMFUL, HARMLESS)
    assert reads == dict.fromkeys(inside - set(layered.disk.names[-1]), 1)  # nothing behind its input is read


def test_each_expert_is_read_once_too(tmp_path, reads):
    parts = layerwise.load_layered(save(tmp_path, zoo.network("qwen3_moe")), device="cpu")
    reads.clear()
    layerwise.remembered(parts, HARMFUL)
    assert set(reads) == {name for names in parts.disk.names for name in names}
    assert any("experts.2." in name for name in reads)
    assert set(reads.values()) == {1}


def test_no_two_blocks_are_in_memory_at_a_time_and_none_afterwards(layered, candidates, monkeypatch):
    layers, seen = layered.model.network.model.layers, []
    forward = engine.forward

    def watched(model, tokens):
        seen.append([number for number, block in enumerate(layers) if not any(p.is_meta for p in block.parameters())])
        return forward(model, tokens)

    monkeypatch.setattr(engine, "forward", watched)
    layerwise.sweep(layered, candidates, HARMFUL, HARMLESS, tokens=TOKENS)
    assert {tuple(numbers) for numbers in seen} == {(), (0,), (1,), (2,)}
    assert all(p.is_meta for p in layers.parameters())
    assert tiny.hook_count(layered.model.network) == 0


@pytest.mark.parametrize("memory", [0, 20_000, None])
def test_activations_beyond_the_allowance_go_through_files_with_the_same_numbers(
    memory, layered, candidates, scores, tmp_path, monkeypatch
):
    monkeypatch.setattr(engine, "CPU_BUDGET", 200)  # many batches
    swept = layerwise.sweep(layered, candidates, HARMFUL, HARMLESS, tokens=TOKENS, memory=memory, folder=tmp_path)
    same(swept.scores, scores)
    in_memory, on_disk_ = swept.notes.values()
    assert (in_memory > 0, on_disk_ > 0) == (memory != 0, memory is not None)
    assert in_memory <= (2**60 if memory is None else memory)
    lengths = [sum(map(len, encode(layered.model, prompts))) for prompts in (HARMFUL, HARMLESS)]
    places = 5 * (tiny.LAYERS - 1)  # positions and layers whose class means differ
    added = 5 * (tiny.LAYERS - 2)  # rows that join at the last block are never kept
    rows = (1 + places) * sum(lengths) + added * lengths[1]
    kept_at_least = 4 * tiny.D * rows
    assert kept_at_least <= in_memory + on_disk_ <= 1.06 * kept_at_least  # the formula of docs/streaming.md
    assert not list(tmp_path.iterdir())


def test_prompts_of_unequal_lengths_in_one_batch_change_nothing(layered, candidates, scores, monkeypatch):
    monkeypatch.setattr(engine, "WASTE", 1.0)
    same(layerwise.sweep(layered, candidates, HARMFUL, HARMLESS, tokens=TOKENS).scores, scores)
    found = layerwise.mean_difference(layered, HARMFUL, HARMLESS)
    torch.testing.assert_close(found.differences, candidates.differences, **CLOSE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_said():
    store = kept.Store(0, Path("/dev"))
    with pytest.raises(Unavailable, match="The disk is full: /dev/full"):
        kept.Place(store, Path("/dev/full")).write(torch.ones(2, 3, 4))


def test_a_batch_that_does_not_fit_is_halved(layered, candidates, scores, monkeypatch):
    forward = engine.forward

    def small(model, tokens):
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("as a GPU says it")
        return forward(model, tokens)

    monkeypatch.setattr(engine, "forward", small)
    same(layerwise.sweep(layered, candidates, HARMFUL, HARMLESS, tokens=TOKENS).scores, scores)


# --- where it cannot be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "why"), [("gemma3n_text", "shape"), ("rwkv", "changes its blocks' weights")])
def test_families_that_cannot_be_cut_are_refused(kind, why, tmp_path):
    with pytest.raises(UnsupportedModel, match=f"one block at a time.*{why}"):
        layerwise.load_layered(save(tmp_path, zoo.network(kind)), device="cpu")


def test_blocks_that_share_more_than_the_stream_are_found_out(folder, monkeypatch):
    first = {}
    block, model = modeling_llama.LlamaDecoderLayer.forward, modeling_llama.LlamaModel.forward

    def remembers(self, hidden_states, *args, **kwargs):
        return block(self, hidden_states, *args, **kwargs) + first.setdefault("x", hidden_states)

    def forgets(self, *args, **kwargs):
        first.clear()
        return model(self, *args, **kwargs)

    monkeypatch.setattr(modeling_llama.LlamaDecoderLayer, "forward", remembers)
    monkeypatch.setattr(modeling_llama.LlamaModel, "forward", forgets)
    with pytest.raises(UnsupportedModel, match="behind the second block its numbers are off by"):
        layerwise.load_layered(folder, device="cpu")


def test_steps_that_need_the_whole_model_say_so(layered):
    with pytest.raises(UnsupportedModel, match="block 0 are on disk"):
        engine.last_logits(layered.model, encode(layered.model, HARMFUL))
    with (
        pytest.raises(UnsupportedModel, match="block 0 are on disk"),
        ablate(layered.model, tiny.direction(layered.model)),
    ):
        engine.last_logits(layered.model, encode(layered.model, HARMFUL))


def test_a_tensor_that_is_missing_or_of_another_shape_is_said(folder, tmp_path):
    save(tmp_path, tiny.network())
    path, name = tmp_path / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(path)
    save_file({key: value for key, value in tensors.items() if key != name}, path, {"format": "pt"})
    with pytest.raises(BadInput, match=rf"lacks '{name}'"):
        layerwise.load_layered(tmp_path, device="cpu")
    save_file({**tensors, name: tensors[name][:-1].clone()}, path, {"format": "pt"})
    with pytest.raises(BadInput, match=rf"'{name}' has shape \[43, 24\]"):
        layerwise.load_layered(tmp_path, device="cpu")


def test_shards_are_read_where_they_lie(folder, tmp_path, candidates, scores):
    network = tiny.network()
    network.save_pretrained(tmp_path, max_shard_size="20KB")
    tiny.tokenizer().save_pretrained(tmp_path)
    assert len(read_files(tmp_path).shards) > 2
    parts = layerwise.load_layered(tmp_path, device="cpu")
    same(layerwise.sweep(parts, candidates, HARMFUL, HARMLESS, tokens=TOKENS).scores, scores)


# --- the run folder ---------------------------------------------------------------------------------------------


def test_find_makes_the_same_choice_and_a_run_without_it_goes_on_from_there(tmp_path):
    plain = pipeline.find(small_runs.config(tmp_path, out=tmp_path / "plain", **small_runs.LEAST))
    how = {"stream_layers": True, "stream_memory": 0.00001, **small_runs.LEAST}
    streamed = small_runs.config(tmp_path, out=tmp_path / "streamed", **how)
    found = pipeline.find(streamed)
    assert (found.position, found.layer) == (plain.position, plain.layer)
    torch.testing.assert_close(found.vector, plain.vector, **CLOSE)
    record = json.loads((tmp_path / "streamed" / "run.json").read_text())
    assert record["choices"]["layers"].startswith("streamed")
    assert record["engine"]["activations in files, bytes"] > 0
    assert record["config"]["stream_layers"] == {"value": True, "given": True}
    before = artifacts(tmp_path / "streamed")
    with pytest.raises(Unavailable, match=r"The direction is chosen: .*direction.safetensors"):
        pipeline.run(streamed)
    assert artifacts(tmp_path / "streamed") == before
    pipeline.run(replace(streamed, stream_layers=False, stream_memory=None))
    after = artifacts(tmp_path / "streamed")
    assert {name: after[name] for name in before} == before
    assert Direction.load(tmp_path / "streamed" / "direction.safetensors").layer == found.layer
    assert "results.json" in after


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream_layers": True, "sweep": "fast"}, "stream_layers scores every candidate"),
        ({"stream_memory": 1.0}, "stream_memory is 1.0: .* together with stream_layers"),
        ({"stream_layers": True, "stream_memory": -1.0}, "stream_memory is -1.0: give GiB from 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message, tmp_path):
    with pytest.raises(BadSetting, match=message):
        small_runs.config(tmp_path, **changes)
