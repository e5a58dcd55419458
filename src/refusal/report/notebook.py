"""Analyses in a notebook: the sentences, figures and table that the report has of them."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol, runtime_checkable

from refusal import display
from refusal.display import Shown
from refusal.hidden import spelled
from refusal.labels import Row
from refusal.report.mechanism import suffix_values
from refusal.report.sections import section_of


@runtime_checkable
class Recorded(Protocol):
    """What an analysis returns."""

    def record(self) -> Mapping[str, Any]:
        """Return plain values."""
        ...


def show(found: Recorded) -> Shown:
    """Show what an analysis found, as the report does: `show(measure_metrics(...))`, `show(study_suffix(...))`.

    In a notebook with figures; `print` gives the sentences. Raises BadRunFolder for something else.
    """
    record = found.record()
    return _suffix(record) if "suffix" in record else _section(record)


def _section(record: Row) -> Shown:
    section = section_of(record["name"], record, record["name"])
    parts = [
        _paragraphs(section.said),
        display.figures(*section.figures),
        section.key,
        section.more,
    ]
    if section.table:
        rows = [dict(zip(section.table.head, row, strict=True)) for row in section.table.rows]
        parts.append(display.table(rows))
    return Shown(display.card(section.title, {}, *parts), "\n".join([section.title, *section.said]))


def _suffix(record: Row) -> Shown:
    found = suffix_values(record)
    title, columns = f"The suffix “{found['suffix']}”", ("condition", "note", "count", "rate", "interval", "cosine")
    lines = display.table([{name: line[name] for name in columns} for line in found["lines"]])
    several = [found[part] for part in ("cosines", "wrote", "looked")]
    parts = [
        part for one in several for part in (_paragraphs([one["said"]]), display.figures(*one["figures"]), one["key"])
    ]
    html = display.card(title, {"tokens": found["tokens"]}, _paragraphs([found["said"]]), lines, *parts)
    return Shown(html, "\n".join([title, found["said"], *(one["said"] for one in several)]))


def _paragraphs(said: Sequence[str]) -> str:
    return "".join(f"<div>{escape(spelled(sentence))}</div>" for sentence in said)
