r"""What class means of activations cost: ours against transformer-lens, nnsight and steering-vectors.

A random model is saved, and everyone computes from it the means of the residual stream of two sets of prompts (12 to
60 tokens), before every block and at the last five positions, in a process of its own: its memory is its own, too.
Each loads the model, tries its way on a few prompts, and then takes its time once; the processes run in turn.

The others are not needed by the package. Install them beside it, without another torch, and name that interpreter:

    .venv/bin/python -m venv PEERS
    echo "import site; site.addsitedir('$PWD/.venv/lib/python3.11/site-packages')" \
        > PEERS/lib/python3.11/site-packages/shared.pth
    PEERS/bin/python -m pip install -c constraints.txt transformer-lens nnsight scikit-learn
    PEERS/bin/python -m pip install --no-deps steering-vectors    # asks for an older transformers, runs with ours
    python benchmarks/extract.py --peers PEERS/bin/python

Every one of them gets token ids in batches of 32, padded on the left with a mask, and keeps the activations that are
asked for, as its documentation shows. In a second row ("helped") the prompts are sorted by length, no logits but the
last are computed, and only the last positions are kept where it can do so: the arithmetic is then ours but for some
padding and the last block, and little can be gained on a CPU. Ours gets the texts. steering-vectors sees what blocks
return, which is what the next one is given: layer 0 is not in its table.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sizes import POSITIONS, SHAPES, keep, machine, parser, random_model, table, two_classes
from torch import Tensor

BATCH = 32
OURS = "refusal"
PEERS = ("transformer-lens", "nnsight", "steering-vectors")
HELPED = ", helped"
THEIRS = tuple(peer + how for how in ("", HELPED) for peer in PEERS)
Activations = Callable[[Tensor, Tensor], list[Tensor]]  # ids and mask `b s` → of every layer `b s d`, or the end of it


def main() -> None:
    options = arguments()
    if options.step:
        step(options)
        return
    print(machine("cpu"), "\n")
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        model = random_model(SHAPES[options.shape], options.vocabulary)
        model.network.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        del model
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("nothing", OURS, *THEIRS)}
        for _ in range(options.rounds):
            for name, results in found.items():
                results.append(child(name, options))
        rows = [summary(name, results, options.folder) for name, results in found.items()]
    print(table([{key: value for key, value in row.items() if key != "why"} for row in rows]))
    for row in rows:
        if row["why"]:
            print(f"\n{row['who']} did not run: {row['why']}")
        keep(options.json, {"benchmark": "extract", "shape": options.shape, "machine": machine("cpu"), **row})
    ours = next(row for row in rows if row["who"] == OURS)
    for who, among in (("others", PEERS), ("helped", THEIRS[len(PEERS) :])):
        ran = [row for row in rows if row["who"] in among and not row["why"]]
        if ran and not ours["why"]:
            longer, larger = (min(row[key] for row in ran) / ours[key] for key in ("seconds", "peak MiB"))
            print(f"\nThe {who}: the fastest takes {longer:.2f} times our time,", end=" ")
            print(f"the smallest {larger:.2f} times our memory.")


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--shape", default="100M", choices=list(SHAPES))
    made.add_argument("--vocabulary", type=int, default=32000)
    made.add_argument("--prompts", type=int, default=256, help="half of them of each class")
    made.add_argument("--peers", default=sys.executable, help="the Python that has the others")
    made.add_argument("--step", choices=["nothing", OURS, *THEIRS], help=argparse.SUPPRESS)
    made.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return made.parse_args()


def child(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one way in a process of its own; return what it says, or why it cannot run."""
    module = name.removesuffix(HELPED).replace("-", "_")
    if name in THEIRS and options.peers == sys.executable and not find_spec(module):
        return {"why": f"No module named '{module}' here; see --peers"}
    python = options.peers if name in THEIRS else sys.executable
    command = [python, __file__, "--step", name, "--folder", str(options.folder), "--prompts", str(options.prompts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"why": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def summary(name: str, results: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
    why = next((result["why"] for result in results if "why" in result), "")
    row: dict[str, Any] = {"who": name, "version": "", "seconds": "–", "peak MiB": "–", "means off": "–", "why": why}
    if not why:
        row["version"] = results[0]["version"]
        row["seconds"] = median(result["seconds"] for result in results)
        row["peak MiB"] = median(result["peak"] for result in results) / 2**20
        if name in THEIRS:
            row["means off"] = off(folder, name)
    return row


def off(folder: Path, name: str) -> float:
    """Return the largest difference between a peer's means and ours, over our largest mean."""
    ours, theirs = (load_file(folder / f"{who}.means")["means"] for who in (OURS, name))
    ours = ours[:, :, -theirs.shape[2] :]
    return float((ours - theirs).abs().max() / ours.abs().max())


def step(options: argparse.Namespace) -> None:
    """Be one of the processes: load, warm up, measure, and say so in JSON."""
    from refusal.extraction import encode, mean_difference
    from refusal.model import load_model

    model = load_model(str(options.folder), dtype="float32", device="cpu")
    texts = two_classes(options.prompts, seed=10)
    tokens = [encode(model, some) for some in texts]

    def ours(count: int | None = None) -> Tensor:
        found = mean_difference(model, texts[0][:count], texts[1][:count])
        return torch.stack([found.harmful, found.harmless])

    if options.step in THEIRS:
        name, helped = options.step.removesuffix(HELPED), options.step.endswith(HELPED)
        way = WAYS[name](model, {"logits_to_keep": 1} if helped else {})
        tokens = [sorted(some, key=len) for some in tokens] if helped else tokens
        run = lambda count=None: torch.stack([means(way, some[:count], model.pad_token) for some in tokens])  # noqa: E731
    else:
        run = ours if options.step == OURS else lambda _=None: torch.zeros(1)
    with torch.no_grad():
        run(4)
        start = time.perf_counter()
        found = run()
    seconds = time.perf_counter() - start
    save_file({"means": found}, options.folder / f"{options.step}.means")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        which = version(options.step.removesuffix(HELPED))
    except PackageNotFoundError:
        which = ""
    print(json.dumps({"seconds": seconds, "peak": peak, "version": which}))


def means(activations: Activations, tokens: list[list[int]], pad: int) -> Tensor:
    """Average what a peer hands out, `p l d`."""
    from plain import pad as padded

    total: Any = 0
    for start in range(0, len(tokens), BATCH):
        batch = padded(tokens[start : start + BATCH], pad, torch.device("cpu"))
        layers = activations(batch["input_ids"], batch["attention_mask"])
        total = total + torch.stack([x[:, -POSITIONS:].double().sum(0) for x in layers], dim=1)
    return total / len(tokens)


def transformer_lens(model: Any, less: dict[str, int]) -> Activations:
    from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore

    bridge = TransformerBridge.boot_transformers(
        str(model.name), hf_model=model.network, tokenizer=model.tokenizer, device="cpu"
    )
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.n_layers)]

    last = {"pos_slice": slice(-POSITIONS, None)} if less else {}

    def activations(ids: Tensor, mask: Tensor) -> list[Tensor]:
        _, cache = bridge.run_with_cache(ids, attention_mask=mask, names_filter=names, **less, **last)
        return [cache[name] for name in names]

    return activations


def nnsight(model: Any, less: dict[str, int]) -> Activations:
    import nnsight

    traced = nnsight.LanguageModel(model.network, tokenizer=model.tokenizer)

    def activations(ids: Tensor, mask: Tensor) -> list[Tensor]:
        with traced.trace({"input_ids": ids, "attention_mask": mask}, **less):
            kept = nnsight.save([block.input[:, -POSITIONS:] for block in traced.model.layers])
        return kept

    return activations


def steering_vectors(model: Any, less: dict[str, int]) -> Activations:
    from steering_vectors import record_activations  # pyright: ignore

    def activations(ids: Tensor, mask: Tensor) -> list[Tensor]:
        with record_activations(model.network, layer_nums=range(model.n_layers - 1)) as kept:
            model.network(input_ids=ids, attention_mask=mask, **less)
        return [kept[layer][0] for layer in range(model.n_layers - 1)]

    return activations


WAYS = {"transformer-lens": transformer_lens, "nnsight": nnsight, "steering-vectors": steering_vectors}

if __name__ == "__main__":
    main()
