"""What a section of the page is made of; here, so that those who make one and those who list them can both name it."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

Row = Mapping[str, Any]


class Table(TypedDict):
    """A table of texts."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(TypedDict):
    """What one analysis says: sentences made from its numbers, then figures (markup) and their key, then a table."""

    so: NotRequired[str]  # what was found, in one sentence; `sections` puts it there
    title: str
    said: Sequence[str]
    figures: Sequence[str]
    key: str
    table: Table | None
    more: NotRequired[str]  # markup of another kind, under the figures
