"""The candidates as a heat map to click on, and what is known of one of them. From records alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

from refusal.figures import KL_FLOOR, SCORES
from refusal.formats import number, tidy, visible
from refusal.labels import Row
from refusal.rule import NO_DIFFERENCE, SELECTED, SURVIVOR

Place = tuple[int, int]  # position, layer
WRITTEN = 16  # layers up to which there is room for numbers in the cells
BETTER = {"bypass": -1, "induce": 1, "kl": -1}  # which way a score is better


@dataclass(frozen=True)
class Picked:
    """The places of the first direction and, if one is compared with it, of the second."""

    first: Place
    second: Place | None = None


def places(selection: Sequence[Row]) -> dict[Place, Row]:
    """Return the recorded candidates by position and layer."""
    return {(row["position"], row["layer"]): row for row in selection}


def chosen_place(selection: Sequence[Row]) -> Place | None:
    """Return where the run read its direction; None where nothing was chosen."""
    return next(((row["position"], row["layer"]) for row in selection if row["verdict"] == SELECTED), None)


def grid(selection: Sequence[Row], tokens: Sequence[str], score: str, picked: Picked | None) -> dict[str, Any]:
    """Return the values of the heat map: a line a position, a cell a layer; `level` is 1 for the best."""
    rows = places(selection)
    positions, layers = (sorted({place[i] for place in rows}) for i in (0, 1))
    known = [_scaled(row, score) for row in rows.values() if row[score] is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    lines = [
        {
            "position": position,
            "label": number(position),
            "token": visible(tokens[position]) if tokens else "",
            "cells": [
                _cell(rows.get((position, layer)), (position, layer), score, (low, high), picked) for layer in layers
            ],
        }
        for position in positions
    ]
    title, note = SCORES[score]
    return {
        "lines": lines,
        "layers": layers,
        "title": title,
        "note": note,
        "every": _every(len(layers)),
        "written": len(layers) <= WRITTEN,
        "hatched": any(cell["level"] is None for line in lines for cell in line["cells"]),
        "same": any(row["verdict"] == NO_DIFFERENCE for row in rows.values()),
    }


def facts(row: Row | None, place: Place, tokens: Sequence[str]) -> dict[str, Any]:
    """Return what is recorded of one candidate, in words."""
    position, layer = place
    token = f" (token {visible(tokens[position])})" if tokens else ""
    scores = [] if row is None else [(SCORES[name][0], _told(row, name)) for name in SCORES]
    return {"where": f"Layer {layer}, position {number(position)}{token}", "scores": scores, "verdict": _verdict(row)}


def _cell(
    row: Row | None, place: Place, score: str, extent: tuple[float, float], picked: Picked | None
) -> dict[str, Any]:
    position, layer = place
    value = None if row is None or row[score] is None else _scaled(row, score)
    low, high = extent
    told = "not recorded" if row is None else f"{SCORES[score][0]} {_told(row, score)}, {_verdict(row)}"
    verdict = "" if row is None else row["verdict"]
    return {
        "position": position,
        "layer": layer,
        "level": None if value is None else round((value - low) / (high - low or 1), 3),
        "value": "" if row is None or row[score] is None else tidy(row[score]),
        "title": f"Layer {layer}, position {number(position)}: {told}",
        "passes": verdict in (SELECTED, SURVIVOR),
        "chosen": verdict == SELECTED,
        "nothing": row is None or verdict == NO_DIFFERENCE,
        "first": picked is not None and picked.first == place,
        "second": picked is not None and picked.second == place,
    }


def _scaled(row: Mapping[str, Any], score: str) -> float:
    value = log10(max(row[score], KL_FLOOR)) if score == "kl" else row[score]
    return BETTER[score] * value


def _told(row: Row, score: str) -> str:
    return "not measured" if row[score] is None else number(row[score])


def _verdict(row: Row | None) -> str:
    if row is None:
        return "not recorded"
    return {SELECTED: "chosen by the run", SURVIVOR: "passes every limit"}.get(row["verdict"], str(row["verdict"]))


def _every(count: int) -> int:
    """Return of how many layers one is numbered."""
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if count / step <= 20)
