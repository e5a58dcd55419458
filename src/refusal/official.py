"""A run folder of the paper's own repository (andyrdt/refusal_direction) becomes one of ours."""

import json
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from refusal.config import RunConfig
from refusal.direction import Candidates, Direction
from refusal.errors import BadInput
from refusal.judges import verdicts
from refusal.judges.read import read_completions
from refusal.records import Run, write_json, write_rows
from refusal.results import summarize
from refusal.rule import choose, read_scores

SCORES = "select_direction/direction_evaluations.json"
MEANS = "generate_directions/mean_diffs.pt"
SETS = {"jailbreakbench": "harmful", "harmless": "harmless"}
LABELS = {"baseline": "none", "ablation": "ablation", "actadd": "addition"}


def import_run(source: Path, folder: Path) -> Path:
    """Write an official run into a new run folder of ours and return it; what the source lacks is left out.

    Takes the bare NaN of its JSON, its `null` categories, and directions that are views of a larger storage. Raises
    BadInput when `source` is not an official run, BadRunFolder when `folder` is taken.
    """
    metadata = _json(source / "direction_metadata.json")
    scores = read_scores(source / SCORES)
    n_layers = 1 + max(score.layer for score in scores)
    run = Run.open(folder, {"imported": source.name, "scores": len(scores)})
    judged = choose(scores, n_layers)
    chosen = judged.chosen
    agrees = (chosen.position, chosen.layer) == (metadata["pos"], metadata["layer"])
    ours = "our rule chooses the same" if agrees else f"our rule chooses {chosen}"
    write_rows(folder / "selection.jsonl", (asdict(score) for score in judged.scores))
    n_positions = len({score.position for score in scores})
    run.note(
        model=source.name,
        n_layers=n_layers,
        config=RunConfig(model=source.name).record(),
        choices={"direction": f"the official choice, {metadata}; {ours}"},
        position_tokens=[""] * n_positions,
        grammar=False,
        imported={"from": source.name, "by": "the paper's official code"},
    )
    _tensors(source, folder, metadata)
    _completions(source, folder)
    losses = {path.stem.split("_")[0]: _json(path) for path in sorted((source / "loss_evals").glob("*.json"))}
    if losses:
        write_json(folder / "losses.json", losses)
    write_json(folder / "results.json", summarize(folder))
    run.note(status="imported")
    return folder


def _tensors(source: Path, folder: Path, metadata: dict[str, int]) -> None:
    """Keep the chosen direction, and all differences as candidates: the class means themselves were not recorded."""
    origin = {"model": source.name, "imported": "official run; `harmful` holds mean differences, `harmless` zeros"}
    if (source / "direction.pt").exists():
        vector = _tensor(source / "direction.pt")
        Direction(vector, metadata["layer"], metadata["pos"], origin).save(folder / "direction.safetensors")
    if (source / MEANS).exists():
        differences = _tensor(source / MEANS)
        tokens = ("",) * differences.shape[0]
        Candidates(differences, torch.zeros_like(differences), tokens, origin).save(folder / "candidates.safetensors")


def _completions(source: Path, folder: Path) -> None:
    for dataset, name in SETS.items():
        for label, kind in LABELS.items():
            files = [source / "completions" / f"{dataset}_{label}_{end}.json" for end in ("evaluations", "completions")]
            found = next((path for path in files if path.exists()), None)
            if found:
                completions = read_completions(found)
                write_rows(folder / "completions" / f"{name}.{kind}.jsonl", (c.record() for c in completions))
                rows = ({"verdict": verdict} for verdict in verdicts(completions))
                write_rows(folder / "judgements" / f"{name}.{kind}.substring.jsonl", rows)


def _tensor(path: Path) -> Tensor:
    """Load one tensor without running code; cloned, because the file holds the whole storage it is a view of."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise BadInput(
            f"Cannot read the tensor in {path}: {error}. Expected a .pt file of the official code."
        ) from error
    if not isinstance(value, Tensor):
        raise BadInput(
            f"{path} holds a {type(value).__name__}, not a tensor. Expected a .pt file of the official code."
        )
    return value.clone()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"Cannot read {path}: {error}. Expected a run folder of the official repository (pipeline/runs/<model>)."
        ) from error
