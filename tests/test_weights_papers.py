"""What lies beside exported weights: card, record and sums of every form, and what a stopped export leaves."""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch

import tiny
from refusal.errors import BadInput, Unavailable
from refusal.model import load_model
from refusal.weights.bias import bake_addition, export_addition
from refusal.weights.papers import direction_hash

OUR_FILES = {"README.md", "refusal.json", "SHA256SUMS"}


class Killed(BaseException):
    pass


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def check_sums(folder: Path) -> None:
    """Hold the sums against every file of the folder, as `sha256sum -c` does."""
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == names(folder) - {"SHA256SUMS"}
    assert all(sha256((folder / name).read_bytes()).hexdigest() == digest for digest, name in lines)


# --- a checkpoint of an addition ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "layer"), [("llama", 1), ("llama tied", 0)])
def test_an_addition_has_card_record_and_sums(family, layer, tmp_path):
    source = tmp_path / "source"
    tiny.network(family).save_pretrained(source)
    tiny.tokenizer().save_pretrained(source)
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    model = load_model(source, device="cpu")
    direction = tiny.direction(model)
    baked = export_addition(
        model, direction, tmp_path / "out", coefficient=-0.5, layer=layer, effect={"refusals": "98/100"}
    )
    out = tmp_path / "out"
    assert names(out) >= OUR_FILES | {"config.json", "model.safetensors"}
    check_sums(out)
    card, record = (out / "README.md").read_text(), json.loads((out / "refusal.json").read_text())
    for text in ("license: apache-2.0", "-0.5 times", f"layer {layer}", direction_hash(direction), "98/100"):
        assert text in card
    assert baked.choices["addition"] in card
    assert (record["form"], record["intervention"]) == ("checkpoint", "addition")
    assert (record["coefficient"], record["layer"]) == (-0.5, layer)
    assert record["direction"]["sha256"] == direction_hash(direction)
    assert ("tie_word_embeddings" in card) == (layer == 0) == record["untied"]
    assert ("New biases: 9" in card) == (layer == 1)  # three a block, of which one is not zero


def test_without_checksums_an_addition_has_none(tmp_path):
    model = tiny.shared()
    export_addition(model, tiny.direction(model), tmp_path / "out", checksums=False)
    assert OUR_FILES - names(tmp_path / "out") == {"SHA256SUMS"}
    assert "SHA256SUMS" not in (tmp_path / "out" / "README.md").read_text()


def test_an_addition_stopped_anywhere_says_so_and_begins_again(tmp_path, monkeypatch):
    model = tiny.shared()
    direction = tiny.direction(model)
    export_addition(model, direction, tmp_path / "wanted")
    wanted = {name: (tmp_path / "wanted" / name).read_bytes() for name in names(tmp_path / "wanted")}
    replace, save = os.replace, type(model.network).save_pretrained

    def stopped_saving(self, folder, **arguments):
        save(self, folder, **arguments)
        raise Killed

    def at(number):
        left = [number]

        def stop(old, new):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            replace(old, new)

        return stop

    stops = [(type(model.network), "save_pretrained", stopped_saving), *((os, "replace", at(n)) for n in range(4))]
    for number, patch in enumerate(stops):
        out = tmp_path / f"out{number}"
        with monkeypatch.context() as patched:
            patched.setattr(*patch)
            with pytest.raises(Killed):
                export_addition(model, direction, out)
        assert "UNFINISHED.json" in names(out) or all(name.startswith(".") for name in names(out))
        if "UNFINISHED.json" in names(out):
            with pytest.raises(BadInput, match=r"stopped, of another kind .*coefficient"):
                export_addition(model, direction, out, coefficient=2.0)
        export_addition(model, direction, out)
        assert {name: (out / name).read_bytes() for name in names(out)} == wanted


def test_an_addition_is_never_written_into_its_source_or_without_room(tmp_path, monkeypatch):
    tiny.network().save_pretrained(tmp_path / "source")
    tiny.tokenizer().save_pretrained(tmp_path / "source")
    model = load_model(tmp_path / "source", device="cpu")
    with pytest.raises(BadInput, match="never written to"):
        export_addition(model, tiny.direction(model), tmp_path / "source" / "inside")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1_000_000))
    with pytest.raises(Unavailable, match=r"has 0\.00 GB free"):
        export_addition(model, tiny.direction(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_loaded_from_it_is_the_model_in_memory(tmp_path):
    model = tiny.shared("llama with biases")
    direction = tiny.direction(model)
    export_addition(model, direction, tmp_path / "out")
    loaded, wanted = load_model(tmp_path / "out", device="cpu").network, bake_addition(model, direction).network
    assert all(torch.equal(tensor, wanted.state_dict()[name]) for name, tensor in loaded.state_dict().items())
