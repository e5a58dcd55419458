"""What an edit of the weights reaches, as the page shows it: how many matrices, how exactly, what is left in them."""

import re
from collections.abc import Sequence
from typing import Any

from refusal.findings import Row
from refusal.formats import percent
from refusal.report.words import listed

WHEN = ("before", "after")
ROUNDING = 1e-4  # share of a matrix that lies along the direction, below which nothing is left but rounding


def coverage(record: Row | None) -> dict[str, Any] | None:
    """Return what the page says of `coverage.json`; None for a run that has none, as earlier versions wrote them."""
    if record is None:
        return None
    writers: Sequence[Row] = record["writers"]
    edited = sum(one["edited"] for one in writers)
    reached = "all of them are" if edited == len(writers) else f"{edited} of them {'is' if edited == 1 else 'are'}"
    said = [f"{len(writers)} tensors write to the residual stream; {reached} edited."]
    if record["gaps"]:
        said.append(f"Not covered: {'; '.join(record['gaps'])}.")
    said.append(_exactness(writers))
    before, after = record["largest_before"], record["largest_after"]
    if before is not None and after is not None:
        said.append(
            f"At most {percent(before)} of a tensor's norm lies along the direction before, and "
            f"{'nothing but rounding' if after < ROUNDING else f'at most {percent(after)}'} after."
        )
    return {"said": said, "groups": [_group(name, rows) for name, rows in _alike(writers).items()]}


def _exactness(writers: Sequence[Row]) -> str:
    inexact = dict.fromkeys(one["why"] for one in writers if one["edited"] and not one["exact"])
    if inexact:
        return f"For some of them the edit is not exactly ablation: {listed([*inexact])}."
    return "Of those that are edited, the edit is exact: up to rounding it is ablation."


def _alike(writers: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the tensors by their names without numbers: the same matrix of every block stands in one line."""
    found: dict[str, list[Row]] = {}
    for one in writers:
        found.setdefault(re.sub(r"\b\d+\b", "*", one["name"]), []).append(one)
    return found


def _group(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    largest = {when: max((row[when] for row in rows if row[when] is not None), default=None) for when in WHEN}
    return {
        "name": name,
        "n": len(rows),
        "shape": " or ".join(dict.fromkeys(" × ".join(map(str, row["shape"])) for row in rows)),
        "edited": sum(row["edited"] for row in rows),
        "exact": sum(row["exact"] for row in rows),
        "why": "; ".join(dict.fromkeys(row["why"] for row in rows)),
        "before": percent(largest["before"]),
        "after": "rounding" if (after := largest["after"]) is not None and after < ROUNDING else percent(after),
    }
