"""What a run's numbers are worth, as the page shows it: paired tests in words, and other draws of prompts."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from refusal.comparisons import LEVEL
from refusal.conditions import MAIN
from refusal.findings import Row
from refusal.formats import extent, interval, number, points, signed, span
from refusal.labels import label_of, name_of
from refusal.report.words import counted
from refusal.results import result_sets


def tests(results: Row) -> list[dict[str, Any]]:
    """Return the paired tests of every set of prompts, in sentences and in a table; empty where there is none."""
    by_set: dict[str, list[Row]] = {}
    for row in results.get("comparisons") or []:
        by_set.setdefault(row["set"], []).append(row)
    return [_tests(name, rows, _names(results, name)) for name, rows in by_set.items()]


def _names(results: Row, name: str) -> Callable[[str], str]:
    """Return what conditions of one set are called, additions with their coefficients."""
    rows = result_sets(results).get(name, {})
    return lambda condition: name_of(condition, rows.get(condition, {}).get("coefficient"))


def _tests(name: str, rows: list[Row], called: Callable[[str], str]) -> dict[str, Any]:
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in rows))
    cells = {(row["first"], row["second"], row["judge"]): row for row in rows}
    lines = [
        {
            "first": called(first),
            "second": called(second),
            "cells": [_test(cells.get((first, second, judge))) for judge in judges],
        }
        for first, second in pairs
    ]
    words = {judge: next(row["measure"] for row in rows if row["judge"] == judge) for judge in judges}
    heads = [f"{counted(judge, words[judge])} ({judge})" for judge in judges]
    return {"set": name, "heads": heads, "lines": lines, "said": _in_words(name, rows, judges[0], called)}


def _in_words(name: str, rows: list[Row], judge: str, called: Callable[[str], str]) -> list[str]:
    """Say what the set's headline intervention did, by its first judge: against nothing, then against all controls."""
    main = MAIN.get(name, "ablation")
    own = {(r["first"], r["second"]): r for r in rows if r["judge"] == judge and r["difference"] is not None}
    controls = [
        row for (first, second), row in own.items() if first == main and label_of(second).control
    ]  # a judge may have determined no pair
    what, done = counted(judge, next(row["measure"] for row in rows if row["judge"] == judge)), called(main)
    said = []
    if row := own.get((main, "none")):
        said.append(f"{done} against no intervention: {what} {_points_of(row)}, {_test(row)['said']}.")
    if len(controls) == 1:
        said.append(
            f"{done} against {called(controls[0]['second']).lower()}: {what} {_points_of(controls[0])}, "
            f"{_test(controls[0])['said']}."
        )
    elif controls:
        said.append(f"{done} against each of its {len(controls)} controls: {what} {_spread(controls, called)}.")
    if row := own.get(("weights", "ablation")):
        said.append(f"Edited weights against ablation by hooks: {what} {_points_of(row)}, {_test(row)['said']}.")
    return said


def _points_of(row: Row) -> str:
    return f"{points(row['difference'])} points {interval(row, points)}"


def _spread(rows: Sequence[Row], called: Callable[[str], str]) -> str:
    """Say of several comparisons how far their differences reach, and which of them show none."""
    low, high = (points(pick(row["difference"] for row in rows)) for pick in (min, max))
    same = [called(row["second"]).lower() for row in rows if row["p_holm"] >= LEVEL]
    reach = f"{low} points" if low == high else f"{low} to {high} points"
    return f"{reach}, {'all differ' if not same else 'no difference shown to ' + ', '.join(same)}"


def _test(row: Row | None) -> dict[str, str]:
    if row is None:
        return {"difference": "–", "interval": "", "p": "", "said": ""}
    differs = row["p_holm"] < LEVEL
    return {
        "difference": points(row["difference"]),
        "interval": span(row, points),
        "p": "< 0.0001" if row["p_holm"] < 1e-4 else f"{row['p_holm']:.2g}",
        "said": "differs" if differs else "no difference shown",
    }


def draws(results: Row) -> list[str]:
    """Say what was chosen on other draws of prompts; nothing where there was none."""
    drawn: Row = results.get("draws") or {}
    if not drawn:
        return []
    said = [
        f"The choice was made {drawn['n']} more times, each on other train and validation prompts of the same sets."
    ]
    if drawn["failed"]:
        said.append(f"{drawn['failed']} of them found no direction.")
    if "layer" in drawn:
        layer, position = (extent(drawn[name], number) for name in ("layer", "position"))
        cosines = ("cosine", "cosine_same_place", "cosine_random")
        own, same_place, random = (extent(drawn[name], partial(signed, form=".3f")) for name in cosines)
        said += [
            f"They chose layer {layer} (here {results['layer']}) and position {position} "
            f"(here {number(results['position'])}).",
            f"Cosine with the direction of this run: {own}; of the difference of means at its own layer and position: "
            f"{same_place}; of random vectors: {random}.",
        ]
    return said
