"""What a run found, in sentences made from its numbers: the first thing that a reader sees."""

from collections.abc import Mapping
from typing import Any

from refusal.conditions import MAIN, read_condition
from refusal.findings import Findings, Row
from refusal.formats import brief, ends, number, percent, visible
from refusal.report.judges import rank

LEVEL = 0.05  # of the corrected paired test, below which conditions are said to differ
DOING = {"ablation": "Ablating", "addition": "Adding"}


def headline(results: Row) -> list[str]:
    """Say what the direction did, in a sentence a set, from the numbers alone."""
    place = f"layer {results['layer']}, position {number(results['position'])}"
    said: list[str] = []
    for name, done in MAIN.items():
        rows: Mapping[str, Row] = results.get(name) or {}
        if "none" in rows and done in rows:
            what = "the same direction" if said else f"one direction, {place},"
            said.append(_sentence(f"{DOING[done]} {what}", name, done, results))
    return said or ["This run has no pair of refusal counts, with and without the direction, to compare."]


def _sentence(doing: str, name: str, done: str, results: Row) -> str:
    rows = results[name]
    before, after = rows["none"], rows[done]
    prompts = f"{after['n']} held-out {name} prompts"
    if _differs(name, done, before, after, results):
        told = f"takes refusals of {prompts} from {brief(before['rate'])} to {brief(after['rate'])} {ends(after)}"
    else:
        told = (
            f"does not change refusals of {prompts} by more than chance: {brief(before['rate'])} without it, "
            f"{brief(after['rate'])} {ends(after)} with it"
        )
    return f"{doing} {told}{_control(name, done, results)}."


def _differs(name: str, done: str, before: Row, after: Row, results: Row) -> bool:
    """Ask the paired test, or where there is none whether the intervals lie apart."""
    for row in results.get("comparisons") or []:
        if (row["set"], row["judge"], row["first"], row["second"]) == (name, "substring", done, "none"):
            return row["p_holm"] < LEVEL
    return after["high"] < before["low"] or after["low"] > before["high"]


def _control(name: str, done: str, results: Row) -> str:
    """Say what random directions did in its place; that they leave refusals as they were only where they do."""
    rows = results[name]
    randoms = [
        row for key, row in rows.items() if (c := read_condition(key)) and c.source == "random" and c.kind == done
    ]
    rates = [row["rate"] for row in randoms if row["rate"] is not None]
    if not rates:
        return ""
    low, high = min(rates), max(rates)
    told = brief(low) if brief(low) == brief(high) else f"{brief(low)} to {brief(high)}"
    what = "a random direction" if len(rates) == 1 else f"{len(rates)} random directions"
    before = rows["none"]
    leaves = all(before["low"] <= rate <= before["high"] for rate in rates)
    if not leaves:
        return f"; with {what} it is {told}"
    return f"; {what} {'leaves' if len(rates) == 1 else 'leave'} {told}"


def chosen(findings: Findings) -> list[str]:
    """Say where the direction was read, from how many candidates, and how long it is."""
    results, tokens = findings.results, position_tokens(findings.record)
    token = f" (token {visible(tokens[results['position']])})" if tokens else ""
    said = [
        f"The direction was read at layer {results['layer']}, position {number(results['position'])}{token}: of "
        f"{results['total']} candidates, {results['survivors']} passed every limit, and this one has the lowest "
        "bypass score."
    ]
    length, residual = results.get("direction_norm"), results.get("resid_norm")
    if length is not None:
        said.append(f"Its length is {number(length)}.")
    if length is not None and residual:
        share = percent(length / residual)
        said.append(f"That is {share} of the residual stream's mean length there ({number(residual)}).")
    return said


def position_tokens(record: Row) -> list[str]:
    """Return the texts of the post-instruction tokens; empty when the run does not know them."""
    tokens = record.get("position_tokens") or []
    return tokens if any(tokens) else []


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
        f"Find. The model read {count('train')}prompts. At every layer and at every position of the template behind "
        "the instruction, the mean activation on harmful prompts minus that on harmless ones is a candidate direction: "
        f"{layers} layers × {positions} positions = {results['total']}.",
        f"Choose. On {count('val')}validation prompts each candidate was taken out of the model's activations, and put "
        "in. Chosen is the one without which the model refuses least, among those that bring refusal about when added "
        "and change answers to harmless prompts little when removed.",
        "Test. On prompts that had no part in this, the model answered with nothing done to it; with the direction "
        "ablated (removed from everything that is written to the residual stream), added (at its own layer), and baked "
        "into the weights; and with control directions in its place.",
    ]
    every = [row for rows in findings.completions.values() for answers in rows.values() for row in answers[:1]]
    judges = sorted({judge for row in every for judge in row["verdicts"]}, key=rank)
    if judges:
        said.append(f"Judge. Every answer was judged by {_listed(judges)}; rates have 95 % intervals over prompts.")
    return said


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
