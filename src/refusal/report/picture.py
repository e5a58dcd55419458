"""A figure of the page with its numbers and its key: what is shown, read aloud, and saved as SVG and CSV."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import unescape
from typing import Any

from refusal import svg

_TOLD = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_LABEL = re.compile(r' aria-label="([^"]*)"')


@dataclass(frozen=True)
class Picture:
    """One figure: its markup, the numbers in it as a table, and once it is placed its key and the name of its files."""

    svg: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    key: str = ""
    name: str = ""

    @property
    def title(self) -> str:
        """What the figure is called."""
        found = _LABEL.search(self.svg)
        return unescape(found[1]) if found else "Figure"

    @property
    def alone(self) -> str:
        """The figure as an SVG file of its own."""
        return svg.stand_alone(self.svg, self.key)

    @property
    def csv(self) -> str:
        """Its numbers as CSV, with plain minus signs and spaces."""
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([self.head, *self.rows])
        return file.getvalue().replace("−", "-").replace("\N{NO-BREAK SPACE}", " ")


def picture(drawn: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Picture:
    """Return a figure with its numbers; None is an empty cell."""
    return Picture(drawn, tuple(head), tuple(tuple(map(_cell, row)) for row in rows))


def placed(values: Any, places: Mapping[str, str] | None = None) -> Any:
    """Return the page's values with every figure as a Picture that has its key and a name of its own.

    Figures are what stands under `figures`, as Pictures or as markup; the key is the `key` beside them.
    A name begins with where its figure stands: what `places` calls the nearest value around it, and the `name` there.
    Of markup alone, the numbers are what its marks tell when they are pointed at.
    """
    return _placed(values, places or {}, (), "", set())


def _placed(values: Any, places: Mapping[str, str], where: tuple[str, ...], key: str, taken: set[str]) -> Any:
    if isinstance(values, Picture):
        name = _free(_name(where, values.title), taken)
        taken.add(name)
        return replace(values, name=name, key=key)
    if isinstance(values, Mapping):
        own = values.get("key") or ""
        own = own if isinstance(own, str) else ""
        part = (values["name"],) if where and isinstance(values.get("name"), str) else ()
        return {
            name: _placed(
                _told(value) if name == "figures" else value,
                places,
                (places.get(name, name),) if name in places or not where else (*where, *part),
                own,
                taken,
            )
            for name, value in values.items()
        }
    return [_placed(value, places, where, key, taken) for value in values] if isinstance(values, list) else values


def pictures(values: Any) -> list[Picture]:
    """Return every figure in the page's values, in order."""
    if isinstance(values, Picture):
        return [values]
    inner = values.values() if isinstance(values, Mapping) else values if isinstance(values, list) else ()
    return [found for value in inner for found in pictures(value)]


def _told(value: Any) -> Any:
    if isinstance(value, str):
        told = [unescape(text).rpartition(": ") for text in _TOLD.findall(value)]
        return picture(value, ("what", "value"), ((what, text) for what, _, text in told)) if value else None
    return [_told(each) for each in value] if isinstance(value, (list, tuple)) else value


def _name(where: Iterable[str], title: str) -> str:
    """Return where a figure stands and what it is called as the name of a file, nothing said twice."""
    said = _plain(title) or "figure"
    for part in map(_plain, reversed([*where])):
        said = said if said.startswith(part) else f"{part}-{said}"
    return said


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("−", "minus ")).strip("-")


def _free(name: str, taken: set[str]) -> str:
    return next(one for i in range(1, len(taken) + 2) if (one := name if i == 1 else f"{name}-{i}") not in taken)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
