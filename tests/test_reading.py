"""Directions written by other tools are read as what they are; anything else is refused by name."""

import json
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

import tiny
from refusal import engine
from refusal.direction import Direction
from refusal.errors import BadInput, Unavailable
from refusal.interventions import add
from refusal.weights.gguf import export_control_vector
from refusal.weights.reading import export_steered, load_direction

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "official"


@pytest.fixture
def direction():
    return tiny.direction(tiny.shared(), layer=2)


def test_ours_comes_back_whole(direction, tmp_path):
    direction.save(tmp_path / "d.safetensors")
    read = load_direction(tmp_path / "d.safetensors")
    assert torch.equal(read.vector, direction.vector)
    assert (read.layer, read.position) == (2, -1)
    # Where to add it is for its user to say: the layer chooses among several only.
    assert load_direction(tmp_path / "d.safetensors", layer=1).layer == 2


def test_a_file_that_is_there_is_not_written_over(direction, tmp_path):
    (tmp_path / "s.pt").write_text("mine")
    with pytest.raises(BadInput, match=r"s\.pt is there already"):
        export_steered(tiny.shared(), direction, tmp_path / "s.pt")
    assert (tmp_path / "s.pt").read_text() == "mine"


# --- the official code ------------------------------------------------------------------------------------------


def test_the_official_vector_is_read_with_its_metadata(direction, tmp_path):
    torch.save(torch.stack([direction.vector, direction.vector * 2])[1], tmp_path / "direction.pt")  # a view
    (tmp_path / "direction_metadata.json").write_text(json.dumps({"pos": -3, "layer": 5}))
    read = load_direction(tmp_path / "direction.pt")
    assert torch.equal(read.vector, direction.vector * 2)
    assert read.vector.untyped_storage().nbytes() == read.vector.nbytes
    assert (read.layer, read.position) == (5, -3)
    assert "official" in read.origin["imported"]


def test_a_bare_vector_needs_a_layer(direction, tmp_path):
    torch.save(direction.vector, tmp_path / "direction.pt")
    with pytest.raises(BadInput, match="Give layer="):
        load_direction(tmp_path / "direction.pt")
    assert load_direction(tmp_path / "direction.pt", layer=7).layer == 7


def test_broken_metadata_is_refused(direction, tmp_path):
    torch.save(direction.vector, tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text('{"pos": -1}')
    with pytest.raises(BadInput, match="'layer'"):
        load_direction(tmp_path / "direction.pt")


@pytest.mark.skipif(not GOLDEN.exists(), reason="the official run folders are not here")
def test_a_direction_of_the_official_runs_is_read():
    folder = next(path.parent for path in sorted(GOLDEN.glob("*/direction.pt")))
    metadata = json.loads((folder / "direction_metadata.json").read_text())
    read = load_direction(folder / "direction.pt")
    assert (read.layer, read.position) == (metadata["layer"], metadata["pos"])
    means = torch.load(folder / "generate_directions" / "mean_diffs.pt", map_location="cpu", weights_only=True)
    assert torch.equal(read.vector, means[metadata["pos"], metadata["layer"]])


# --- llama.cpp --------------------------------------------------------------------------------------------------


def control_vector(path, vectors, architecture="controlvector"):
    writer = gguf.GGUFWriter(path, architecture)
    for name, vector in vectors.items():
        writer.add_tensor(name, np.asarray(vector, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_our_own_control_vector_comes_back_at_its_layer(direction, tmp_path):
    path = export_control_vector(tiny.shared(), direction, tmp_path / "c.gguf", coefficient=2.0)
    read = load_direction(path)
    assert read.layer == 2
    assert torch.equal(read.vector, (direction.vector * 2).float())
    assert read.origin["tensor"] == "direction.1"
    assert read.origin["model_hint"] == "llama"


def test_one_of_several_layers_is_chosen_and_zeros_do_not_count(tmp_path):
    several = control_vector(
        tmp_path / "several.gguf", {f"direction.{n}": [n, 1.0] if n != 2 else [0, 0] for n in (1, 2, 3)}
    )
    with pytest.raises(BadInput, match="layers 2, 4, and none was chosen"):
        load_direction(several)
    assert load_direction(several, layer=4).vector.tolist() == [3.0, 1.0]
    with pytest.raises(BadInput, match="none for layer 3"):
        load_direction(several, layer=3)
    one = control_vector(tmp_path / "one.gguf", {"direction.1": [0.0, 0.0], "direction.2": [1.0, 2.0]})
    assert load_direction(one).layer == 3


def test_other_gguf_files_are_refused(tmp_path):
    model = control_vector(tmp_path / "model.gguf", {"token_embd.weight": [1.0]}, "llama")
    with pytest.raises(BadInput, match="a 'llama', not a control vector"):
        load_direction(model)
    with pytest.raises(BadInput, match="no direction that is not zero"):
        load_direction(control_vector(tmp_path / "zero.gguf", {"direction.1": [0.0, 0.0]}))
    for size in (0, 3, 40, 100):
        cut = tmp_path / f"{size}.gguf"
        cut.write_bytes(model.read_bytes()[:size])
        with pytest.raises(BadInput, match="not a whole GGUF file"):
            load_direction(cut)


def test_without_gguf_the_error_names_the_extra(tmp_path, monkeypatch):
    path = control_vector(tmp_path / "one.gguf", {"direction.2": [1.0, 2.0]})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(Unavailable, match=r"refusal\[gguf\]"):
        load_direction(path)


# --- lm-evaluation-harness --------------------------------------------------------------------------------------


def logits(model):
    return engine.last_logits(model, [model.encode(text) for text in tiny.PROMPTS])


def as_the_harness_does(model, path):
    """Return logits under lm_eval's `steered` model: a forward hook on the named modules of `base_model`."""
    handles = []
    for name, entry in torch.load(path, weights_only=True).items():

        def hook(_module, _args, output, entry=entry):
            first = output[0] if isinstance(output, tuple) else output
            added = first + entry["steering_coefficient"] * entry["steering_vector"]
            return (added, *output[1:]) if isinstance(output, tuple) else added

        handles.append(model.network.base_model.get_submodule(name).register_forward_hook(hook))
    try:
        return logits(model)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_a_steering_file_adds_in_the_harness_what_the_hook_adds(family, tmp_path):
    model = tiny.shared(family)
    direction = tiny.direction(model, layer=2)
    path = export_steered(model, direction, tmp_path / "s.pt", coefficient=1.5)
    steered = as_the_harness_does(model, path)
    with add(model, direction, coefficient=1.5):
        hooked = logits(model)
    assert not torch.allclose(logits(model), hooked, atol=0.1)
    assert torch.allclose(steered, hooked, atol=1e-5)
    read = load_direction(path)
    assert read.layer == 2
    assert torch.allclose(read.vector, 1.5 * direction.vector.float())
    assert read.origin["hookpoint"] == "layers.1"


def test_a_steering_file_cannot_add_at_layer_0(tmp_path):
    model = tiny.shared()
    with pytest.raises(BadInput, match="layer 0"):
        export_steered(model, tiny.direction(model, layer=0), tmp_path / "s.pt")
    with pytest.raises(BadInput, match="layer 3"):
        export_steered(model, tiny.direction(model), tmp_path / "s.pt", layer=3)


def entry(vector, action="add", coefficient=2.0):
    return {"steering_vector": vector, "steering_coefficient": coefficient, "action": action, "bias": None}


def test_a_clamped_direction_keeps_its_own_length_and_one_of_several_is_chosen(tmp_path):
    path = tmp_path / "s.pt"
    torch.save({"layers.3": entry(torch.ones(4), "clamp", 0.0), "layers.5.mlp": entry(torch.ones(4))}, path)
    with pytest.raises(BadInput, match="layers 4, 6"):
        load_direction(path)
    clamped = load_direction(path, layer=4)
    assert clamped.vector.tolist() == [1.0] * 4
    assert (clamped.origin["action"], clamped.origin["coefficient"]) == ("clamp", 0.0)
    assert load_direction(path, layer=6).vector.tolist() == [2.0] * 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"embed_tokens": entry(torch.ones(4))}, "'embed_tokens' is none of a block"),
        ({"layers.1": {"vector": torch.ones(4)}}, "'layers.1' is none"),
        ({"layers.1": entry(torch.ones(2, 4))}, "1-D tensor"),
        ({"layers.1": entry(torch.ones(4)), "layers.1.mlp": entry(torch.ones(4))}, "several directions behind block 1"),
        ({}, "holds a dict without steering vectors"),
        ([1.0], "holds a list"),
        (torch.ones(2, 4), "shape"),
    ],
)
def test_other_pickles_are_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "s.pt")
    with pytest.raises(BadInput, match=message):
        load_direction(tmp_path / "s.pt", layer=1)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_no_code_is_run_and_other_files_are_named(tmp_path, capsys):
    torch.save(Evil(), tmp_path / "evil.pt")
    (tmp_path / "text.pt").write_text("no pickle")
    (tmp_path / "features.csv").write_text("loader,action\n")
    (tmp_path / "notes.txt").write_text("a direction")
    (tmp_path / "broken.safetensors").write_bytes(b"123")
    shutil.copytree(tmp_path, tmp_path / "folder.pt")
    for name, message in (
        ("evil.pt", "without running code"),
        ("text.pt", "without running code"),
        ("features.csv", "sparse autoencoders"),
        ("notes.txt", "no direction file"),
        ("broken.safetensors", "Expected a direction file"),
        ("missing.gguf", "There is no file"),
        ("folder.pt", "There is no file"),
    ):
        with pytest.raises(BadInput, match=message):
            load_direction(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


def test_a_vector_with_nan_or_zero_is_refused(tmp_path):
    for value in (torch.zeros(4), torch.full((4,), torch.nan)):
        torch.save(value, tmp_path / "d.pt")
        with pytest.raises(BadInput, match="zero or not finite"):
            load_direction(tmp_path / "d.pt", layer=1)


def test_the_origin_travels_with_the_direction(tmp_path):
    torch.save(torch.ones(4), tmp_path / "d.pt")
    load_direction(tmp_path / "d.pt", layer=1).save(tmp_path / "d.safetensors")
    assert Direction.load(tmp_path / "d.safetensors").origin["file"] == "d.pt"
