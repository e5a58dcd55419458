"""The checkpoint form of the edit: only the writers' bytes change, in every family, and nothing is left half done."""

import itertools
import json
import os
import shutil
import signal
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from transformers import AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import Interleave, Transpose, WeightConverter
from transformers.utils import logging

import tiny
import zoo
from forked import fork
from refusal.architectures import ROWS, writers
from refusal.direction import Direction
from refusal.errors import BadInput, Unavailable, UnsupportedModel
from refusal.model import load_model
from refusal.weights import checkpoint, names, orthogonalize, streamed
from refusal.weights.checkpoint import export_checkpoint
from refusal.weights.safetensors_files import read_header
from refusal.weights.untying import untied_config

SHARD = "20KB"  # several shards, and matrices that lie in different ones
OUR_FILES = {"README.md", "refusal.json", "SHA256SUMS"}
DIRECTION = tiny.direction(tiny.shared())


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable_progress_bar()


def save(folder: Path, kind: str = "llama", *, shard: str | None = SHARD, dtype=torch.float32, network=None) -> Path:
    """A tiny checkpoint as transformers saves it, with a tokenizer."""
    network = network or zoo.network(kind).to(dtype)
    network.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    tiny.tokenizer().save_pretrained(folder)
    if kind == "qwen":  # as on the Hub: code of its own, which is never run
        change_config(folder, auto_map={"AutoConfig": "configuration_qwen.QWenConfig"})
    return folder


def change_config(folder: Path, **settings) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def different_bytes(source: Path, out: Path) -> dict[str, set[str]]:
    """Which tensors of two files of one layout differ, and (as "") whether anything outside of them does."""
    found = {}
    for path in source.glob("*.safetensors"):
        old, new = path.read_bytes(), (out / path.name).read_bytes()
        header = read_header(path)
        begin = min(tensor.start for tensor in header)
        changed = {t.name for t in header if old[t.start : t.end] != new[t.start : t.end]}
        if old[:begin] != new[:begin] or len(old) != len(new):
            changed.add("")
        found[path.name] = changed
    return found


# --- the same edit as in memory, in every family -------------------------------------------------------------------


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_the_export_is_the_edit_in_memory_bit_by_bit(tmp_path, kind):
    network = zoo.network(kind)
    source = save(tmp_path / "source", kind, network=network)
    export = export_checkpoint(source, DIRECTION, tmp_path / "out", incomplete_ok=True)
    edited = orthogonalize(load_model(network, tiny.tokenizer()), DIRECTION, in_place=True)
    edited.network.save_pretrained(tmp_path / "wanted", max_shard_size=SHARD)
    before, found, wanted = (tensors(tmp_path / name) for name in ("source", "out", "wanted"))
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []
    changed = {name for name in before if not torch.equal(before[name], found[name])}
    assert changed == {writer.name for writer in export.coverage.writers}
    assert len(changed) >= len(writers(edited.network, edited.architecture))
    assert export.untied == (found.keys() != before.keys())


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "gpt2", "gpt_oss", "gemma2", "llama4_text", "dbrx", "gemma3"])
def test_a_loaded_export_gives_the_logits_of_the_edited_model(tmp_path, kind):
    source = save(tmp_path / "source", kind)
    export_checkpoint(source, DIRECTION, tmp_path / "out")
    model = load_model(zoo.network(kind), tiny.tokenizer())
    edited = orthogonalize(model, DIRECTION).network
    loaded, said = type(edited).from_pretrained(tmp_path / "out", dtype=torch.float32, output_loading_info=True)
    assert not any(said.values())  # nothing missing, unexpected or of another shape
    ids = torch.arange(40, 52)[None]
    with torch.no_grad():
        found, wanted, plain = (network(input_ids=ids).logits for network in (loaded.eval(), edited, model.network))
    assert torch.equal(found, wanted)
    assert not torch.allclose(found, plain, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])  # gemma2: gains are read in that dtype, too
def test_other_dtypes_are_edited_in_float32_and_rounded_once(tmp_path, kind, dtype):
    source = save(tmp_path / "source", kind, dtype=dtype)
    export_checkpoint(source, DIRECTION, tmp_path / "out")
    edited = orthogonalize(load_model(zoo.network(kind).to(dtype), tiny.tokenizer()), DIRECTION).network
    edited.save_pretrained(tmp_path / "wanted")
    found, wanted = tensors(tmp_path / "out"), tensors(tmp_path / "wanted")
    assert found.keys() == wanted.keys()
    assert all(found[name].dtype == dtype and torch.equal(found[name], wanted[name]) for name in wanted)


def test_large_tensors_are_edited_in_pieces_with_the_same_result(tmp_path, monkeypatch):
    source = save(tmp_path / "source", "mixtral")
    export_checkpoint(source, DIRECTION, tmp_path / "whole")
    monkeypatch.setattr(streamed, "IN_MEMORY", 3 * tiny.D)
    monkeypatch.setattr(streamed, "LARGE", 0)
    monkeypatch.setattr(streamed, "CHUNK", 1000)
    monkeypatch.setattr("refusal.weights.written.IN_CACHE", 1)
    export_checkpoint(source, DIRECTION, tmp_path / "pieces")
    whole, pieces = tensors(tmp_path / "whole"), tensors(tmp_path / "pieces")
    for name in whole:  # sums of other lengths may round otherwise
        assert torch.allclose(whole[name], pieces[name], rtol=0, atol=1e-6), name


# --- only the writers' bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [SHARD, None])
def test_only_the_writers_bytes_change(tmp_path, shard):
    source = save(tmp_path / "source", shard=shard)
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (source / "original").mkdir()
    (source / "original" / "params.json").write_text("{}")
    before = contents(source)
    export = export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert contents(source) == before  # the source is only read
    found = different_bytes(source, tmp_path / "out")
    assert set.union(*found.values()) == {writer.name for writer in export.coverage.writers}
    after = contents(tmp_path / "out")
    assert after.keys() == before.keys() | OUR_FILES
    assert [name for name in before if not name.endswith(".safetensors") and after[name] != before[name]] == []
    # One byte outside a writer, and the check above fails.
    path = tmp_path / "out" / next(iter(found))
    data = bytearray(path.read_bytes())
    reader = next(t for t in read_header(path) if t.name not in {w.name for w in export.coverage.writers})
    data[reader.start] ^= 1
    path.write_bytes(data)
    assert set.union(*different_bytes(source, tmp_path / "out").values()) - {w.name for w in export.coverage.writers}


@pytest.mark.parametrize("wrong", ["axis", "skipped"])
def test_a_wrong_axis_and_a_skipped_writer_would_be_seen(tmp_path, monkeypatch, wrong):
    kind = "llama square" if wrong == "axis" else "llama"
    network = tiny.network(kind)
    network.save_pretrained(tmp_path / "source")
    plan = checkpoint.planned

    def broken(files, layout, direction):
        edits = plan(files, layout, direction)
        at = next(i for i, edit in enumerate(edits) if edit.stored.name.endswith("1.self_attn.o_proj.weight"))
        turned = [streamed.Edit(edits[at].stored, -1, edits[at].how)] if wrong == "axis" else []
        return [*edits[:at], *turned, *edits[at + 1 :]]

    monkeypatch.setattr(checkpoint, "planned", broken)
    export = export_checkpoint(tmp_path / "source", DIRECTION, tmp_path / "out")
    edited = orthogonalize(load_model(network, tiny.tokenizer()), DIRECTION).network.state_dict()
    found = tensors(tmp_path / "out")
    assert [n for n in found if not torch.equal(found[n], edited[n])] == ["model.layers.1.self_attn.o_proj.weight"]
    if wrong == "skipped":
        assert [w.name for w in export.coverage.writers if w.after is None] == [
            "model.layers.1.self_attn.o_proj.weight"
        ]


def test_copying_goes_on_where_the_kernel_cannot_do_it(tmp_path, monkeypatch):
    source = save(tmp_path / "source")
    export_checkpoint(source, DIRECTION, tmp_path / "kernel")

    def refused(*_arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refused)
    export_checkpoint(source, DIRECTION, tmp_path / "by hand")
    assert contents(tmp_path / "kernel") == contents(tmp_path / "by hand")


def test_other_formats_of_the_weights_are_left_out_and_named(tmp_path):
    source = save(tmp_path / "source")
    for name in ("pytorch_model.bin", "consolidated.safetensors", "model-q4.gguf"):
        (source / name).write_bytes(b"unedited")
    export = export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert export.left_out == ("consolidated.safetensors", "model-q4.gguf", "pytorch_model.bin")
    assert not any((tmp_path / "out" / name).exists() for name in export.left_out)
    assert "pytorch_model.bin" in (tmp_path / "out" / "README.md").read_text()


# --- names on disk ------------------------------------------------------------------------------------------------


def test_a_writer_that_is_turned_on_loading_is_edited_along_the_other_axis(tmp_path, monkeypatch):
    source = save(tmp_path / "source", shard=None)
    turn(source, monkeypatch, Transpose(0, 1), lambda tensor: tensor.mT.contiguous())
    export_checkpoint(source, DIRECTION, tmp_path / "out")
    edited = orthogonalize(load_model(zoo.network("llama"), tiny.tokenizer()), DIRECTION).network.state_dict()
    found, before = tensors(tmp_path / "out"), tensors(source)
    assert all(torch.equal(found[n], edited[n]) for n in found if "turned" not in n)
    assert not any(torch.allclose(found[n], before[n], atol=0.01) for n in found if "turned" in n)
    for layer in range(zoo.LAYERS):
        name = f"model.layers.{layer}.mlp.down_proj."
        # Sums along the other axis may round otherwise.
        assert torch.allclose(found[f"{name}turned"].mT, edited[f"{name}weight"], rtol=0, atol=1e-6)


def test_a_writer_whose_axis_cannot_be_told_is_an_error_or_a_gap(tmp_path, monkeypatch):
    source = save(tmp_path / "source", shard=None)
    turn(source, monkeypatch, Interleave(0), lambda tensor: tensor)
    with pytest.raises(UnsupportedModel, match=r"down_proj\.turned.*Interleave"):
        export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export = export_checkpoint(source, DIRECTION, tmp_path / "out", incomplete_ok=True)
    assert not export.coverage.complete
    assert [writer.edited for writer in export.coverage.writers].count(False) == zoo.LAYERS
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Incomplete" in card
    assert "Interleave" in card


def turn(folder: Path, monkeypatch, operation, change) -> None:
    """Store the MLP's output matrices under another name that transformers converts on loading."""
    path = folder / "model.safetensors"
    stored = {name.replace("down_proj.weight", "down_proj.turned"): tensor for name, tensor in load_file(path).items()}
    save_file({n: change(t) if n.endswith("turned") else t for n, t in stored.items()}, path, {"format": "pt"})

    def mapping(network):
        rule = WeightConverter("mlp.down_proj.turned", "mlp.down_proj.weight", operations=[operation])
        return [*get_model_conversion_mapping(network), rule]

    monkeypatch.setattr(names, "get_model_conversion_mapping", mapping)


def test_tensors_that_are_not_loaded_are_kept_and_named(tmp_path):
    source = save(tmp_path / "source", shard=None)
    path = source / "model.safetensors"
    save_file({**load_file(path), "model.mtp.weight": torch.ones(3)}, path, {"format": "pt"})
    export = export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert export.coverage.unloaded == ("model.mtp.weight",)
    assert "model.mtp.weight" in (tmp_path / "out" / "README.md").read_text()
    assert torch.equal(tensors(tmp_path / "out")["model.mtp.weight"], torch.ones(3))


def test_a_family_that_cannot_be_edited_completely_is_refused_unless_told_to_go_on(tmp_path):
    source = save(tmp_path / "source", "xglm")
    with pytest.raises(UnsupportedModel, match=r"incomplete.*sinusoidal.*incomplete_ok"):
        export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not export_checkpoint(source, DIRECTION, tmp_path / "out", incomplete_ok=True).coverage.complete
    assert "**Incomplete" in (tmp_path / "out" / "README.md").read_text()


def test_a_row_of_your_own_is_used(tmp_path):
    source = save(tmp_path / "source")
    change_config(source, model_type="mistral")
    row = next(row for row in ROWS if "llama" in row.model_types)
    other = type(row)(**{**row.__dict__, "model_types": ("mistral",), "writers": row.writers[:1], "others": ("**",)})
    export = export_checkpoint(source, DIRECTION, tmp_path / "out", architecture=other)
    assert [writer.name for writer in export.coverage.writers] == ["model.embed_tokens.weight"]


# --- tied embeddings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [SHARD, None])
@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "gemma3"])  # gemma3: tied inside, under a name of its own on disk
def test_tied_embeddings_are_untied_in_the_export(tmp_path, kind, shard):
    source = save(tmp_path / "source", kind, shard=shard)
    export = export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert export.untied
    before, after = tensors(source), tensors(tmp_path / "out")
    (added,) = after.keys() - before.keys()
    embedding = next(name for name in before if name.endswith(("embed_tokens.weight", "wte.weight")))
    assert torch.equal(after[added], before[embedding])
    assert not torch.equal(after[embedding], before[embedding])
    if shard:
        old, new = (json.loads((f / "model.safetensors.index.json").read_text()) for f in (source, tmp_path / "out"))
        assert new["weight_map"].keys() - old["weight_map"].keys() == {added}
        assert new["metadata"]["total_size"] == sum(t.nbytes for t in after.values())
    for path in (tmp_path / "out").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
    assert "tie_word_embeddings" in (tmp_path / "out" / "README.md").read_text()


def test_tied_embeddings_that_are_stored_twice_only_change_the_config(tmp_path):
    source = save(tmp_path / "source", "qwen2", shard=None)
    path = source / "model.safetensors"
    stored = load_file(path)
    save_file({**stored, "lm_head.weight": stored["model.embed_tokens.weight"].clone()}, path, {"format": "pt"})
    assert export_checkpoint(source, DIRECTION, tmp_path / "out").untied
    assert "" not in different_bytes(source, tmp_path / "out")["model.safetensors"]
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(network.lm_head.weight, stored["model.embed_tokens.weight"])


def test_tied_embeddings_can_be_refused(tmp_path):
    source = save(tmp_path / "source", "qwen2")
    with pytest.raises(UnsupportedModel, match="tied"):
        export_checkpoint(source, DIRECTION, tmp_path / "out", tied="refuse")
    assert not (tmp_path / "out").exists()
    assert not export_checkpoint(save(tmp_path / "untied"), DIRECTION, tmp_path / "out", tied="refuse").untied


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ('{"a": 1,  "tie_word_embeddings" : true}', '{"a": 1,  "tie_word_embeddings" : false}'),
        ('{\n  "a": 1\n}', '{\n  "tie_word_embeddings": false,\n  "a": 1\n}'),
        (
            '{"text_config": {"b": 2}, "tie_word_embeddings": true}',
            '{"text_config": {\n    "tie_word_embeddings": false,"b": 2}, "tie_word_embeddings": false}',
        ),
    ],
)
def test_the_config_says_so_and_keeps_every_other_byte(given, wanted):
    assert untied_config(given) == wanted
    json.loads(wanted)


# --- what stands in the export ------------------------------------------------------------------------------------


def test_the_card_the_record_and_the_sums(tmp_path):
    source = save(tmp_path / "source")
    (source / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# The source\n")
    direction = Direction(DIRECTION.vector, 2, -3, {"model": "somewhere/else", "harmful": 32})
    export = export_checkpoint(source, direction, tmp_path / "out", effect={"refusals": "3/100 instead of 98/100"})
    out = tmp_path / "out"
    card, record = (out / "README.md").read_text(), json.loads((out / "refusal.json").read_text())
    for text in ("license: apache-2.0", "layer 2, position -3", "3/100 instead of 98/100", "2406.11717", "do_proj"[3:]):
        assert text in card
    assert record["direction"]["sha256"] in card
    assert (out / "SOURCE_README.md").read_text().endswith("# The source\n")
    assert record["coverage"] == json.loads(json.dumps(export.coverage.record()))
    assert record["effect"] == {"refusals": "3/100 instead of 98/100"}
    (note,) = export.notes
    assert "somewhere/else" in note
    assert note in card
    lines = [line.split("  ") for line in (out / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == contents(out).keys() - {"SHA256SUMS"}
    assert all(sha256((out / name).read_bytes()).hexdigest() == digest for digest, name in lines)


def test_without_checksums_only_they_are_missing(tmp_path):
    source = save(tmp_path / "source")
    export_checkpoint(source, DIRECTION, tmp_path / "with")
    export_checkpoint(source, DIRECTION, tmp_path / "without", checksums=False)
    found, wanted = contents(tmp_path / "without"), contents(tmp_path / "with")
    assert wanted.keys() - found.keys() == {"SHA256SUMS"}
    assert [name for name in found if found[name] != wanted[name]] == ["README.md"]
    assert b"SHA256SUMS" not in found["README.md"]


def test_an_export_can_be_exported_again(tmp_path):
    source = save(tmp_path / "source", "qwen2")
    export_checkpoint(source, DIRECTION, tmp_path / "once")
    again = export_checkpoint(tmp_path / "once", DIRECTION, tmp_path / "twice")
    assert not again.untied
    assert again.coverage.largest[0] < 1e-6  # nothing was left to remove


# --- stopped and resumed ------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def test_stopped_anywhere_it_says_so_and_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    source = save(tmp_path / "source", "qwen2", shard="40KB")
    export_checkpoint(source, DIRECTION, tmp_path / "wanted")
    wanted, replace = contents(tmp_path / "wanted"), os.replace
    stops, finished = 0, False
    while not finished:
        out, left = tmp_path / f"out{stops}", stops

        def until(old, new):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            replace(old, new)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", until)
            try:
                export_checkpoint(source, DIRECTION, out)
                finished = True
            except Killed:
                names = set(contents(out)) if out.exists() else set()
                assert "UNFINISHED.json" in names or all(name.startswith(".") for name in names)
                if "config.json" not in names:  # nothing loads it by mistake
                    with pytest.raises((OSError, ValueError)):
                        AutoModelForCausalLM.from_pretrained(out)
        export = None if finished else export_checkpoint(source, DIRECTION, out)
        assert contents(out) == wanted
        assert export is None or all(writer.after is not None for writer in export.coverage.writers)
        stops += 1
    assert stops > 10


def test_a_process_killed_in_the_middle_of_a_file_resumes_to_the_same_bytes(tmp_path):
    source = save(tmp_path / "source")
    export_checkpoint(source, DIRECTION, tmp_path / "wanted")

    def export_and_die():
        write, written = streamed._Output.write, itertools.count()  # files are written by several threads: one step

        def killing(self, data):
            fatal = next(written) == 3
            write(self, data[: len(data) // 2] if fatal else data)
            if fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        streamed._Output.write = killing
        export_checkpoint(source, DIRECTION, tmp_path / "out")

    assert fork(export_and_die) == -signal.SIGKILL
    assert (tmp_path / "out" / "UNFINISHED.json").exists()
    assert any(
        name.startswith(".model-") for name in contents(tmp_path / "out")
    )  # half a file, under no name of its own
    export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "wanted")


def test_a_stopped_export_of_another_kind_is_not_gone_on_with(tmp_path, monkeypatch):
    source = save(tmp_path / "source")
    monkeypatch.setattr(checkpoint, "_finish", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        export_checkpoint(source, DIRECTION, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(BadInput, match=r"stopped.*direction"):
        export_checkpoint(source, DIRECTION.random(5), tmp_path / "out")
    min((tmp_path / "out").glob("model-*.safetensors")).unlink()  # a whole file, lost since: it is written again
    export_checkpoint(source, DIRECTION, tmp_path / "out")
    export_checkpoint(source, DIRECTION, tmp_path / "wanted")
    assert contents(tmp_path / "out") == contents(tmp_path / "wanted")


# --- bad input: an error before anything is written -----------------------------------------------------------------


def change_tensors(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    save_file({n: t.contiguous() for n, t in change(load_file(path).items()).items()}, path, {"format": "pt"})


def damaged(tmp_path: Path, how: str) -> Path:
    experts = "expert" in how
    source = save(tmp_path / "source", "mixtral" if experts else "llama", shard=None if experts else SHARD)
    shard = sorted(source.glob("*.safetensors"))[0 if experts else 1]
    match how:
        case "missing shard":
            shard.unlink()
        case "cut":
            shard.write_bytes(shard.read_bytes()[:-1])
        case "header":
            shard.write_bytes(shard.read_bytes()[:8] + b"\0" + shard.read_bytes()[9:])
        case "pointer":
            shard.write_text("version https://git-lfs.github.com/spec/v1\n")
        case "index":
            (source / "model.safetensors.index.json").write_text('{"metadata": {}}')
        case "wrong place":
            path = source / "model.safetensors.index.json"
            index = json.loads(path.read_text())
            index["weight_map"]["model.norm.weight"] = shard.name
            path.write_text(json.dumps(index))
        case "twice":
            shutil.copy(shard, source / "model-again.safetensors")
            path = source / "model.safetensors.index.json"
            index = json.loads(path.read_text())
            index["weight_map"]["again"] = "model-again.safetensors"
            path.write_text(json.dumps(index))
        case "no config":
            (source / "config.json").unlink()
        case "config":
            (source / "config.json").write_text("{")
        case "no weights":
            for path in source.glob("model*"):
                path.unlink()
        case "adapter":
            for path in source.glob("model*"):
                path.unlink()
            (source / "adapter_config.json").write_text("{}")
        case "shape":
            change_config(source, intermediate_size=tiny.INNER + 1)
        case "expert's shape":
            change_tensors(source, lambda found: {n: t[:, 1:] if n.endswith("1.w2.weight") else t for n, t in found})
        case "expert":
            change_tensors(source, lambda found: {n: t for n, t in found if not n.endswith("1.w2.weight")})
        case "lacks":
            path = source / "model.safetensors.index.json"
            index = json.loads(path.read_text())
            lost = index["weight_map"].pop("model.norm.weight")
            rest = {n: t for n, t in load_file(source / lost).items() if n != "model.norm.weight"}
            save_file(rest, source / lost, {"format": "pt"})
            path.write_text(json.dumps(index))
    return source


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing shard", r"names \d shards, and 1 of them are not there, such as model-00002"),
        ("cut", "not a whole safetensors file"),
        ("header", "not a whole safetensors file"),
        ("pointer", "git-lfs"),
        ("index", "no weight_map"),
        ("wrong place", "says that"),
        ("twice", "stands in two shards"),
        ("no config", "Cannot read .*config.json"),
        ("config", "Cannot read .*config.json"),
        ("no weights", "neither model.safetensors nor"),
        ("adapter", "is an adapter"),
        ("shape", r"by config.json it should be \[24, 45\]"),
        ("lacks", r"lacks 1 of the model's tensors, such as 'model.norm.weight'"),
        ("expert", r"has 2 of the 3 matrices of 'model.layers.0.mlp.experts.down_proj'"),
        ("expert's shape", r"by config.json it should be \[24, 44\]"),
    ],
)
def test_a_broken_checkpoint_is_an_error_before_anything_is_written(tmp_path, how, said):
    source = damaged(tmp_path, how)
    before = contents(source)
    with pytest.raises(BadInput, match=said):
        export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert contents(source) == before


@pytest.mark.parametrize("method", ["fp8", "mxfp4", "gptq", "awq", "bitsandbytes"])
def test_a_quantized_checkpoint_is_refused_with_its_remedy(tmp_path, method):
    source = save(tmp_path / "source")
    change_config(source, quantization_config={"quant_method": method})
    with pytest.raises(UnsupportedModel, match=rf"quantized \({method}\).*(dequantize|quantize the result again)"):
        export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_writer_that_is_not_floating_point_is_refused(tmp_path):
    source = save(tmp_path / "source", shard=None)
    path, name = source / "model.safetensors", "model.layers.1.mlp.down_proj.weight"
    save_file({**load_file(path), name: torch.zeros(tiny.D, tiny.INNER, dtype=torch.int8)}, path)
    with pytest.raises(UnsupportedModel, match=rf"{name}.*I8"):
        export_checkpoint(source, DIRECTION, tmp_path / "out")


def test_pickles_are_refused(tmp_path):
    source = save(tmp_path / "source", shard=None)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match=r"pickles.*save_pretrained"):
        export_checkpoint(source, DIRECTION, tmp_path / "out")


def test_an_unknown_architecture_is_refused(tmp_path):
    source = save(tmp_path / "source")
    change_config(source, model_type="bert")
    with pytest.raises(UnsupportedModel, match="bert"):
        export_checkpoint(source, DIRECTION, tmp_path / "out")
    change_config(source, model_type="unheard_of", auto_map={"AutoConfig": "code.Config"})
    with pytest.raises(UnsupportedModel, match=r"unheard_of.*code of its own"):
        export_checkpoint(source, DIRECTION, tmp_path / "out")


def test_a_direction_of_another_width_is_refused(tmp_path):
    source = save(tmp_path / "source")
    with pytest.raises(BadInput, match=r"7 components.* 24"):
        export_checkpoint(source, Direction(torch.ones(7), 1, -1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [0, torch.nan, torch.inf, 1e30, 1e-30])  # the squares of the last two have no float32
def test_a_direction_without_a_unit_vector_cannot_be_loaded(tmp_path, value):
    path = tmp_path / "direction.safetensors"
    save_file({"vector": torch.full((tiny.D,), value, dtype=torch.float32)}, path, {"refusal": json.dumps(HEADER)})
    with pytest.raises(BadInput, match="zero or not finite"):
        Direction.load(path)


HEADER = {"format": "1", "kind": "direction", "layer": 1, "position": -1, "origin": {}}


@pytest.mark.parametrize("where", [".", "inside", "../source", ".."])
def test_the_source_is_never_written_to(tmp_path, where):
    source = save(tmp_path / "source")
    before = contents(source)
    with pytest.raises(BadInput, match="never written to"):
        export_checkpoint(source, DIRECTION, source / where)
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(BadInput, match="never written to"):
        export_checkpoint(source, DIRECTION, tmp_path / "link")
    assert contents(source) == before


def test_an_output_that_holds_something_is_refused(tmp_path):
    source = save(tmp_path / "source")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match=r"thesis\.tex"):
        export_checkpoint(source, DIRECTION, tmp_path / "out")
    with pytest.raises(BadInput, match="is a file"):
        export_checkpoint(source, DIRECTION, tmp_path / "out" / "thesis.tex")
    assert contents(tmp_path / "out") == {"thesis.tex": b"mine"}


def test_no_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    source = save(tmp_path / "source")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1_000_000))
    with pytest.raises(Unavailable, match=r"needs 0\.02 GB.* has 0\.00 GB free"):
        export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_is_one_sentence_and_can_be_gone_on_with(tmp_path, monkeypatch):
    source = save(tmp_path / "source")

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(streamed._Output, "write", full)
        with pytest.raises(Unavailable, match=r"disk is full.*it will go on"):
            export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert (tmp_path / "out" / "UNFINISHED.json").exists()
    export_checkpoint(source, DIRECTION, tmp_path / "out")
    assert not (tmp_path / "out" / "UNFINISHED.json").exists()


@pytest.mark.parametrize("name", ["no/such-model", "not a name"])
def test_a_model_that_is_nowhere_is_an_error(tmp_path, name):
    with pytest.raises((BadInput, Unavailable), match=name):
        export_checkpoint(name, DIRECTION, tmp_path / "out")
