"""The paper's tables that a run has numbers for, with its own numbers beside them."""

import re
from typing import Any

from refusal.findings import Findings
from refusal.formats import minus, signed
from refusal.paper import find_model
from refusal.paper.beside import Line
from refusal.paper.beside import Number as Measured
from refusal.paper.shown import Page, pages

SHARE = "share"
OURS = {"yours": "ours", "random direction": "control", "difference": "difference"}  # heading → field of a Line


def paper(findings: Findings) -> dict[str, Any]:
    """Return the tables, a row a number that this run has, too; `known` tells whether the paper has the model."""
    model = str(findings.record["model"])
    found = [page for page in pages(model, run=findings.folder) if any(line.ours for line in page.lines)]
    return {"known": find_model(model) is not None, "tables": [_table(page) for page in found]}


def _table(page: Page) -> dict[str, Any]:
    (_, rows), *_ = page.blocks()
    kept = [(row, line) for row, line in zip(rows, page.lines, strict=True) if line.ours]
    empty = {head for head in rows[0] if all(row[head] == "-" for row, _ in kept)}
    heads = [head for head in rows[0] if head not in empty]
    share = page.table.unit == SHARE
    return {
        "heading": page.heading.removesuffix(f", {SHARE}") + ", %" if share else page.heading,
        "heads": [{"yours": "this run"}.get(head, head) for head in heads],
        "rows": [[_cell(page, head, row[head], line) for head in heads] for row, line in kept],
        "left_out": len(rows) - len(kept),
        "notes": [note for note in page.notes if not note.startswith("Yours: ")],
    }


def _cell(page: Page, head: str, text: str, line: Line) -> str:
    """Return a cell; shares are in per cent on both sides, as everywhere on the page."""
    if page.table.unit != SHARE or not head:
        return minus(text)
    if head in OURS:
        marks = page.marks(line) if head == "yours" else ""
        return _percent(getattr(line, OURS[head]), "+.1f" if head == "difference" else ".1f") + marks
    return minus(re.sub(r"-?\d*\.\d+", lambda found: f"{100 * float(found[0]):.0f}", text))


def _percent(number: Measured | None, form: str) -> str:
    if number is None:
        return "–"
    shown = signed(100 * number.value, form)
    if number.interval is not None:
        shown += " [{}, {}]".format(*(signed(100 * end, form) for end in number.interval))
    return shown + (f" n={number.n}" if number.n else "")
