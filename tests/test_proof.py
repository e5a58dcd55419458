"""verify-export: an export that is the ablated model holds, and one that is not does not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
import zoo
from refusal.direction import Direction
from refusal.errors import BadInput, RefusalError
from refusal.model import load_model
from refusal.weights.checkpoint import export_checkpoint
from refusal.weights.lora import export_lora
from refusal.weights.proof import load_export, verify_export

PROMPTS = list(tiny.PROMPTS[:3])


def saved(folder: Path, kind: str = "llama") -> tuple[Path, Direction]:
    """A tiny checkpoint of a family, and a direction in it."""
    model = zoo.chat_model(kind)
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder, tiny.direction(model)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])  # tied embeddings are untied in the export
def test_a_checkpoint_is_the_ablated_model(tmp_path, kind):
    source, direction = saved(tmp_path / "source", kind)
    export_checkpoint(source, direction, tmp_path / "out")
    proof = verify_export(source, tmp_path / "out", direction, PROMPTS, max_new_tokens=8, device="cpu")
    assert proof.holds
    assert proof.share < 1e-4
    assert proof.effect > 0.1  # there was something to prove
    assert proof.agreement == 1
    assert proof.plain_agreement < 1
    assert proof.record()["exact"]


def test_the_unedited_source_and_another_direction_fail(tmp_path):
    source, direction = saved(tmp_path / "source")
    plain = verify_export(source, source, direction, PROMPTS, max_new_tokens=8, device="cpu")
    assert not plain.holds
    assert plain.share == 1
    assert plain.agreement == plain.plain_agreement < 1
    export_checkpoint(source, direction.random(5), tmp_path / "out")
    assert not verify_export(source, tmp_path / "out", direction, PROMPTS, max_new_tokens=8, device="cpu").holds


def test_one_writer_left_out_is_seen(tmp_path):
    source, direction = saved(tmp_path / "source")
    export_checkpoint(source, direction, tmp_path / "out")
    name = "model.layers.2.mlp.down_proj.weight"
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    tensors[name] = load_file(source / "model.safetensors")[name]
    save_file(tensors, tmp_path / "out" / "model.safetensors", {"format": "pt"})
    proof = verify_export(source, tmp_path / "out", direction, PROMPTS, max_new_tokens=8, device="cpu")
    assert not proof.holds


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_an_adapter_is_the_ablated_model_beside_a_loaded_or_a_named_base(tmp_path, kind):
    source, direction = saved(tmp_path / "source", kind)
    model = load_model(source, device="cpu")
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    export_lora(model, direction, tmp_path / "lora")
    for base in (model, source):
        proof = verify_export(base, tmp_path / "lora", direction, PROMPTS, max_new_tokens=8, device="cpu")
        assert proof.holds
        assert proof.share < 1e-4
        assert proof.agreement == 1
    now = model.network.state_dict()
    assert now.keys() == before.keys()  # a given model is left alone
    assert all(torch.equal(now[name], before[name]) for name in before)
    assert not verify_export(model, tmp_path / "lora", direction.random(5), PROMPTS, max_new_tokens=8).holds
    assert load_export(tmp_path / "lora", device="cpu").name == str(tmp_path / "lora")


def test_a_family_with_a_norm_behind_its_writers_reports_its_difference(tmp_path):
    source, direction = saved(tmp_path / "source", "gemma2")
    export_checkpoint(source, direction, tmp_path / "out")
    proof = verify_export(source, tmp_path / "out", direction, PROMPTS, max_new_tokens=4, device="cpu")
    assert 1e-4 < proof.share < 1  # closer than the source, and not equal
    assert not proof.record()["exact"]


def test_bad_input(tmp_path):
    source, direction = saved(tmp_path / "source")
    with pytest.raises(RefusalError, match="prompt"):
        verify_export(source, source, direction, [], device="cpu")
    with pytest.raises(BadInput, match="components"):
        verify_export(source, source, Direction(torch.ones(7), 1, -1), PROMPTS, device="cpu")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "UNFINISHED.json").write_text("{}")
    with pytest.raises(BadInput, match="stopped"):
        verify_export(source, unfinished, direction, PROMPTS, max_new_tokens=2, device="cpu")
    other, _ = saved(tmp_path / "other")
    tiny.tokenizer(tiny.CHATML.replace("assistant", "user")).save_pretrained(other)
    with pytest.raises(BadInput, match="tokens"):
        verify_export(source, other, direction, PROMPTS, max_new_tokens=2, device="cpu")
