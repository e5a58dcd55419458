"""What a section of the page is made of; here, so that those who make one and those who list them can both name it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """What one analysis says: sentences made from its numbers, then figures (markup) and their key, then a table."""

    title: str
    said: Sequence[str]
    figures: Sequence[str] = ()
    key: str = ""
    table: Table | None = None
    more: str = ""  # markup of another kind, under the figures


@dataclass(frozen=True)
class Missing:
    """An analysis that a run does not have, and why."""

    title: str
    reason: str
