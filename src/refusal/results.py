"""Records → headline numbers: what `results.json` holds, and what `refusal verify` computes again. No torch."""

from pathlib import Path
from typing import Any

from refusal.records import read_json, read_rows
from refusal.statistics import count

SETS = ("harmful", "harmless")
# "weights" is last because the edit is made in place; a control stands behind what it controls.
INTERVENTIONS = ("none", "ablation", "random_ablation", "addition", "random_addition", "weights")
# On each set, "random" is the control of the intervention that the paper applies there.
HEADLINE = {"harmful": "ablation", "harmless": "addition"}
JUDGED = {"substring": "refused", "grammar": "exact"}


def summarize(folder: Path) -> dict[str, Any]:
    """Compute every headline number of a run from its records. Raises BadRunFolder for a missing one."""
    rows = read_rows(folder / "selection.jsonl")
    chosen = next(row for row in rows if row["verdict"] == "selected")
    sets = {name: {kind: _row(folder, name, kind) for kind in INTERVENTIONS} for name in SETS}
    for name, kind in HEADLINE.items():
        sets[name]["random"] = sets[name][f"random_{kind}"] | {"control_of": kind}
    projected = read_json(folder / "projections.json")
    coefficients = read_json(folder / "run.json")["config"]
    for name in SETS:
        for kind in ("addition", "random_addition"):
            sets[name][kind]["coefficient"] = coefficients[f"{name}_coefficient"]["value"]
    sets["harmless"]["random"]["coefficient"] = coefficients["harmless_coefficient"]["value"]
    return {
        **{key: chosen[key] for key in ("position", "layer", "bypass", "induce", "kl")},
        "survivors": sum(row["verdict"] in ("selected", "survivor") for row in rows),
        "total": len(rows),
        "direction_norm": projected["norm"],
        "resid_norm": projected["resid_norm"],
        **sets,
        "weights_equal_ablation": {name: _identical(folder, name, "weights", "ablation") for name in SETS},
    }


def _row(folder: Path, name: str, kind: str) -> dict[str, Any]:
    """Return one rate of refusals, with the rate of exact answers inside where the grammar judged."""
    found: dict[str, Any] = {}
    for judge, word in JUDGED.items():
        path = folder / "judgements" / f"{name}.{kind}.{judge}.jsonl"
        if path.exists() or judge == "substring":
            rate = count(row["verdict"] for row in read_rows(path)).record(word)
            found = rate if judge == "substring" else found | {word: rate}
    return found


def _identical(folder: Path, name: str, first: str, second: str) -> dict[str, int]:
    pair = [read_rows(folder / "completions" / f"{name}.{kind}.jsonl") for kind in (first, second)]
    same = sum(a["response"] == b["response"] for a, b in zip(*pair, strict=True))
    return {"identical": same, "n": len(pair[0])}
