"""What exporting an edited checkpoint costs: time against `cp -r`, peak memory, and both against the in-memory way.

Makes a random sharded checkpoint of Llama's shape in bfloat16 under FOLDER (shard by shard, never whole in memory),
copies and exports it in turns, edits it once in memory (load with transformers, edit, save_pretrained), compares the
two results tensor by tensor, and prints one Markdown table. Everything it wrote is removed at the end.

    python benchmarks/export.py FOLDER    # 6 GB: about 20 GB of free disk, 10 GB of memory
    python benchmarks/export.py FOLDER --gigabytes 0.02 --width 128 --vocabulary 500    # seconds

Every step is a process of its own, so that its peak memory (`ru_maxrss`, kilobytes on Linux) is its own; its time is
that of the whole process, and beside it that of the work without Python's imports. The disk is at rest before each step
(`sync`), and how long it still writes afterwards is given, too.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

SHARD = 1e9  # bytes
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=6.0, help="at least so many, of 10^9 bytes")
    parser.add_argument("--width", type=int, default=4096, help="d_model")
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--rounds", type=int, default=2, help="copies and exports, in turns")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        STEPS[options.step](options)
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    root = options.folder / "export-benchmark"
    root.mkdir(parents=True)  # a folder of our own, which is removed at the end
    try:
        largest = run("make", options)["largest"]
        source = root / "source"
        size = sum(path.stat().st_size for path in source.iterdir())
        shards = len(list(source.glob("*.safetensors")))
        print(
            f"Checkpoint: {size / 1e9:.2f} GB in {shards} shards, bfloat16, Llama's shape, d_model {options.width}; "
            f"largest tensor {largest / 1e6:.0f} MB.\n"
            f"Machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before the first step, "
            f"Python {platform.python_version()}.\n"
        )
        print("| step | seconds | of which work | processor seconds | until on disk | peak memory, GiB |")
        print("|---|---|---|---|---|---|")
        copies, exports, bare = [], [], []
        for turn in range(1, options.rounds + 1):
            copies.append(timed(f"`cp -r`, {turn}", ["cp", "-r", str(source), str(root / "copy")]))
            shutil.rmtree(root / "copy")
            bare.append(run("bare", options, f"streamed export, no checksums, {turn}"))
            shutil.rmtree(root / "streamed")
            exports.append(run("export", options, f"streamed export, {turn}"))
            if turn < options.rounds:
                shutil.rmtree(root / "streamed")
        memory = run("memory", options, "in memory")
        compared = run("compare", options)
        peak = max(export["peak"] for export in exports)
        print(
            f"\nAgainst `cp -r` of the same turn, the whole process and the work without Python's imports:\n"
            f"streamed export {ratios(exports, copies)}; without checksums {ratios(bare, copies)}.\n"
            f"Peak memory {peak / GIB:.2f} GiB; 1 GiB and the largest tensor are {1 + largest / GIB:.2f} GiB.\n"
            f"In memory: {memory['seconds'] / exports[-1]['seconds']:.1f} times the time and "
            f"{memory['peak'] / peak:.1f} times the memory of the streamed export.\n"
            f"Tensors that differ between the two: {compared['different']} of {compared['tensors']}, at most by "
            f"{compared['largest']:.1e}; that differ from the source: {compared['edited']}."
        )
    finally:
        shutil.rmtree(root)


def run(step: str, options: argparse.Namespace, label: str = "") -> dict[str, float]:
    """Run one step of this script in a process of its own; print its line of the table if it has a label."""
    command = [sys.executable, __file__, str(options.folder), "--step", step]
    command += ["--gigabytes", str(options.gigabytes), "--width", str(options.width)]
    return timed(label, [*command, "--vocabulary", str(options.vocabulary)])


def timed(label: str, command: list[str]) -> dict[str, float]:
    os.sync()
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"seconds": time.perf_counter() - start, "processor": processor}
    os.sync()
    found["on_disk"] = time.perf_counter() - start
    found |= json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    if label:
        cells = [found["seconds"], found.get("work", found["seconds"]), processor, found["on_disk"]]
        peak = f"{found['peak'] / GIB:.2f}" if "peak" in found else "–"
        print(f"| {label} | {' | '.join(f'{cell:.1f}' for cell in cells)} | {peak} |", flush=True)
    return found


def ratios(steps: list[dict[str, float]], copies: list[dict[str, float]]) -> str:
    """Say how many times as long as a copy each step took."""
    pairs = list(zip(steps, copies, strict=True))
    whole, work = ([f"{step[key] / copy['seconds']:.2f}" for step, copy in pairs] for key in ("seconds", "work"))
    return f"{', '.join(whole)} and {', '.join(work)} times"


def say(work: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"work": work, "peak": peak}))


def make(options: argparse.Namespace) -> None:
    """Write the random checkpoint, a shard at a time."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    folder = options.folder / "export-benchmark" / "source"
    folder.mkdir()
    d, vocabulary = options.width, options.vocabulary
    layer, ends = layer_size(d), 2 * (2 * vocabulary * d) + 2 * d
    layers = max(1, -int(-(options.gigabytes * 1e9 - ends) // layer))
    config = LlamaConfig(
        hidden_size=d,
        intermediate_size=d * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=d // 32,
        num_key_value_heads=d // 128,
        vocab_size=vocabulary,
        tie_word_embeddings=False,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    shards, largest = list(groups(shapes(d, vocabulary, layers))), 0
    index = {"metadata": {"total_size": 0}, "weight_map": {}}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: 0.02 * torch.randn(shape, generator=generator).bfloat16() for name, shape in names.items()}
        save_file(tensors, folder / file, {"format": "pt"})
        index["weight_map"] |= dict.fromkeys(names, file)
        index["metadata"]["total_size"] += sum(tensor.nbytes for tensor in tensors.values())
        largest = max(largest, *(tensor.nbytes for tensor in tensors.values()))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    print(json.dumps({"largest": largest}))


def layer_size(d: int) -> int:
    """Return the bytes of one layer."""
    return 2 * sum(rows * columns for rows, columns in layer_shapes(d).values()) + 4 * d


def layer_shapes(d: int) -> dict[str, tuple[int, int]]:
    inner, kv = d * 7 // 2, d // 4
    attention = {"q_proj": (d, d), "k_proj": (kv, d), "v_proj": (kv, d), "o_proj": (d, d)}
    mlp = {"gate_proj": (inner, d), "up_proj": (inner, d), "down_proj": (d, inner)}
    return {f"self_attn.{k}": v for k, v in attention.items()} | {f"mlp.{k}": v for k, v in mlp.items()}


def shapes(d: int, vocabulary: int, layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (vocabulary, d)
    for layer in range(layers):
        for name, shape in layer_shapes(d).items():
            yield f"model.layers.{layer}.{name}.weight", shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{name}.weight", (d,)
    yield "model.norm.weight", (d,)
    yield "lm_head.weight", (vocabulary, d)


def groups(named: Iterator[tuple[str, tuple[int, ...]]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Put tensors together until a shard is full."""
    shard, size = {}, 0
    for name, shape in named:
        bytes_ = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        if shard and size + bytes_ > SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += bytes_
    yield shard


def direction(width: int):
    import torch

    from refusal.direction import Direction

    return Direction(torch.randn(width, generator=torch.Generator().manual_seed(1), dtype=torch.float64), 1, -1)


def export(options: argparse.Namespace, *, checksums: bool = True) -> None:
    from refusal.weights.checkpoint import export_checkpoint

    root = options.folder / "export-benchmark"
    start = time.perf_counter()
    export_checkpoint(root / "source", direction(options.width), root / "streamed", checksums=checksums)
    say(time.perf_counter() - start)


def memory(options: argparse.Namespace) -> None:
    """The usual way: load with transformers, edit, save_pretrained."""
    import torch
    from sizes import tokenizer
    from transformers import AutoModelForCausalLM

    from refusal.architectures import find
    from refusal.model import ChatModel
    from refusal.weights import orthogonalize

    root = options.folder / "export-benchmark"
    start = time.perf_counter()
    network = AutoModelForCausalLM.from_pretrained(root / "source", dtype=torch.bfloat16)
    model = ChatModel(network, tokenizer(), find(network), "benchmark")
    orthogonalize(model, direction(options.width), in_place=True).network.save_pretrained(root / "in memory")
    say(time.perf_counter() - start)


def compare(options: argparse.Namespace) -> None:
    """Compare every tensor of the two results and of the source."""
    from safetensors import safe_open

    root = options.folder / "export-benchmark"
    where = {
        kind: {name: path for path in (root / kind).glob("*.safetensors") for name in keys(path)}
        for kind in ("source", "streamed", "in memory")
    }
    names = where["source"].keys()
    assert names == where["streamed"].keys() == where["in memory"].keys()
    different, edited, largest = 0, 0, 0.0
    for name in names:
        tensors = []
        for kind in where:
            with safe_open(where[kind][name], "pt") as file:
                tensors.append(file.get_tensor(name))
        source, streamed, in_memory = tensors
        edited += not source.equal(streamed)
        if not streamed.equal(in_memory):
            different += 1
            largest = max(largest, float((streamed.float() - in_memory.float()).abs().max()))
    print(json.dumps({"tensors": len(names), "different": different, "largest": largest, "edited": edited}))


def keys(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return list(file.keys())


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "make": make,
    "export": export,
    "bare": partial(export, checksums=False),
    "memory": memory,
    "compare": compare,
}

if __name__ == "__main__":
    main()
