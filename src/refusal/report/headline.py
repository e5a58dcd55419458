"""What a run found, in sentences made from its numbers: the first thing that a reader sees."""

from collections.abc import Mapping

from refusal.comparisons import LEVEL
from refusal.conditions import MAIN, Kind
from refusal.findings import Row
from refusal.formats import brief, ends, extent, number
from refusal.results import random_rows

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


def _sentence(doing: str, name: str, done: Kind, results: Row) -> str:
    rows = results[name]
    before, after = rows["none"], rows[done]
    if not (before["n"] and after["n"]):
        which = "with it" if before["n"] else "without it"
        doing = doing.removesuffix(",")
        return f"{doing}: no answer to {name} prompts {which} could be judged, so nothing is known of refusals."
    alike = before["n"] == after["n"]
    prompts = f"{after['n']} held-out {name} prompts" if alike else f"held-out {name} prompts"
    was, now = brief(before["rate"]), f"{brief(after['rate'])} {ends(after)}"
    if not alike:  # answers that could not be judged are in no rate
        was, now = f"{was} of {before['n']}", f"{now} of {after['n']}"
    if differs(name, done, before, after, results):
        told = f"takes refusals of {prompts} from {was} to {now}"
    else:
        told = f"is not shown to change refusals of {prompts}: {was} without it, {now} with it"
    return f"{doing} {told}{_control(name, done, results)}."


def differs(name: str, done: str, before: Row, after: Row, results: Row) -> bool:
    """Ask the paired test, or where there is none whether the intervals lie apart."""
    for row in results.get("comparisons") or []:
        if (row["set"], row["judge"], row["first"], row["second"]) == (name, "substring", done, "none"):
            return row["p_holm"] < LEVEL
    return after["high"] < before["low"] or after["low"] > before["high"]


def _control(name: str, done: Kind, results: Row) -> str:
    """Say what random directions did in its place; that they leave refusals as they were only where they do."""
    rows = results[name]
    rates = [row["rate"] for row in random_rows(rows, done) if row["rate"] is not None]
    if not rates:
        return ""
    told = extent({"min": min(rates), "max": max(rates)}, brief)
    what = "a random direction" if len(rates) == 1 else f"{len(rates)} random directions"
    before = rows["none"]
    leaves = all(before["low"] <= rate <= before["high"] for rate in rates)
    if not leaves:
        return f"; with {what} it is {told}"
    return f"; {what} {'leaves' if len(rates) == 1 else 'leave'} {told}"
