"""Small runs for tests: a tiny random model on disk with prompts that it "refuses", and what a run folder holds."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import tiny
from refusal.config import RunConfig
from refusal.extraction import refusal_scores

REFUSAL_TOKENS = tuple(range(0, 256, 2))  # of a random model: half of all first tokens
TASKS = ("organism",) if find_spec("lm_eval") else ()  # of a language that a random model does not know
NEW = 3  # tokens of an answer
LEAST = {"tasks": (), "coefficients": (), "draws": 0}  # what a test that is about something else can leave out
SIZES = {"train": 6, "val": 4, "test": 4}
SMALL = (
    "--n-train",
    "24",
    "--n-val",
    "8",
    "--n-test",
    "6",
    "--n-curve",
    "4",
    "--coefficients",
    "1.0",
    "--randoms",
    "1",
    "--draws",
    "0",
    "--no-mechanism",
)


def save_model(folder: Path, *, template: str | None = tiny.CHATML, seed: int = 0) -> Path:
    """Write a tiny random chat model as a Hugging Face folder."""
    tiny.network(seed=seed).save_pretrained(folder)
    tiny.tokenizer(template).save_pretrained(folder)
    return folder


def save_prompts(folder: Path) -> dict[str, str]:
    """Write two folders of split files: prompts whose refusal metric under the tiny model is above and below 0."""
    prompts = [f"{word} number {i}" for i in range(60) for word in ("Draw", "Why is", "Tell me about")]
    scores = refusal_scores(tiny.shared(), prompts, tokens=torch.tensor(REFUSAL_TOKENS)).tolist()
    by_class = {
        "harmful": [p for p, score in zip(prompts, scores, strict=True) if score > 0],
        "harmless": [p for p, score in zip(prompts, scores, strict=True) if score < 0],
    }
    for name, found in by_class.items():
        assert len(found) >= sum(SIZES.values()), (name, len(found))
        (folder / name).mkdir(parents=True)
        rest = iter(found)
        for split, size in SIZES.items():
            (folder / name / f"{split}.txt").write_text("\n".join(next(rest) for _ in range(size)) + "\n")
    return {name: str(folder / name) for name in by_class}


def config(folder: Path, **changes: Any) -> RunConfig:
    """Return the settings of a run that takes a second, with its model and prompts under `folder`; makes them once."""
    if not (folder / "model").exists():
        save_model(folder / "model")
        save_prompts(folder)
    settings: dict[str, Any] = {
        "model": str(folder / "model"),
        "out": folder / "run",
        "harmful": str(folder / "harmful"),
        "harmless": str(folder / "harmless"),
        "harmful_test": "",
        "n_train": SIZES["train"],
        "n_val": SIZES["val"],
        "n_test": SIZES["test"],
        "refusal_tokens": REFUSAL_TOKENS,
        "max_kl": 1e9,
        "min_induce": -1e9,
        "prune_layers": 0.0,
        "coefficients": (1.0,),
        "n_curve": 2,
        "randoms": 1,
        "draws": 1,
        "max_new_tokens": NEW,
        "tasks": TASKS,
        "task_limit": 2,
    }
    return RunConfig(**{**settings, **changes})


def artifacts(folder: Path) -> dict[str, bytes]:
    """Return every file of a run but its record and report, whose times differ, by relative path."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", "report.html")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


def steps(folder: Path) -> dict[str, Any]:
    """Return what `run.json` says of every step, without its seconds."""
    record = json.loads((folder / "run.json").read_text())
    return {name: {k: v for k, v in step.items() if k != "seconds"} for name, step in record["steps"].items()}
