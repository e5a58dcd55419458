"""What a run did, step by step, and which direction it chose: sentences from its own numbers."""

from collections.abc import Mapping
from typing import Any

from refusal.conditions import MAIN, read_condition
from refusal.findings import Findings, Row
from refusal.formats import number, percent, visible
from refusal.report.words import listed
from refusal.results import result_sets
from refusal.verdicts import rank

TESTED = {  # kind of condition → how it is said
    "ablation": "with the direction ablated (removed from everything that is written to the residual stream)",
    "addition": "with it added (at its own layer)",
    "weights": "with it removed from the weights",
}


def chosen(findings: Findings) -> list[str]:
    """Say where the direction was read, from how many candidates, and how long it is."""
    results, tokens = findings.results, findings.tokens
    position: int = results["position"]
    token = f" (token {visible(tokens[position])})" if tokens else ""
    said = [
        f"The direction was read at layer {results['layer']}, position {number(position)}{token}: of "
        f"{results['total']} candidates, {results['survivors']} passed every limit, and this one has the lowest "
        "bypass score."
    ]
    length, residual = results.get("direction_norm"), results.get("resid_norm")
    if length is not None:
        share = f", {percent(length / residual)} of the residual stream's mean length there" if residual else ""
        said.append(f"Its length is {number(length)}{share}.")
    return said


def steps(findings: Findings) -> list[str]:
    """Say what the run did, step by step, with its own numbers, to somebody who has not read the paper."""
    record, results = findings.record, findings.results
    parts: Mapping[str, Any] = (record.get("prompts") or {}).get("sample", {}).get("parts", {})
    kept = {name: row["count"] for name, row in parts.items()}
    kept |= {name: row["after"] for name, row in (record.get("filtering") or {}).items()}

    def count(part: str) -> str:
        both = [f"{kept[f'{name}_{part}']} {name}" for name in MAIN if f"{name}_{part}" in kept]
        return " and ".join(both) + " " if both else ""

    layers, positions = (len({row[axis] for row in findings.selection}) for axis in ("layer", "position"))
    said = [
        f"Find. The model read {count('train')}prompts. At every layer and at every position of the template after "
        "the instruction, the mean activation on harmful prompts minus that on harmless ones is a candidate direction: "
        f"{layers} layers × {positions} positions = {results['total']}.",
        f"Choose. On {count('val')}validation prompts each candidate was taken out of the model's activations, and put "
        "in. Chosen is the one without which the model refuses least, among those that bring refusal about when added "
        "and change answers to harmless prompts little when removed.",
        f"Test. On prompts that had no part in this, the model answered {_tested(results)}.",
    ]
    every = [row for rows in findings.completions.values() for answers in rows.values() for row in answers[:1]]
    judges = sorted({judge for row in every for judge in row["verdicts"]}, key=rank)
    if judges:
        said.append(f"Judge. The answers were judged by {listed(judges)}; rates have 95 % intervals over prompts.")
    return said


def _tested(results: Row) -> str:
    """Say under which conditions the model answered, those alone that the run has."""
    found = [c for rows in result_sets(results).values() for key in rows if (c := read_condition(key))]
    ours = {c.kind for c in found if not c.is_control}
    said = ["as it is", *(text for kind, text in TESTED.items() if kind in ours)]
    return listed([*said, "with control directions in its place"] if any(c.is_control for c in found) else said)
