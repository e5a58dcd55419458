"""Axes and marks as SVG text: data in, escaped markup out. The drawing under `figures`; it knows no records.

Static SVG rather than a charting library's script: a few kilobytes a figure, readable offline and in print.
Colours are CSS variables of `STYLE`, so a figure follows the reader's light or dark scheme.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape, unescape
from math import ceil, floor, log10

from refusal.formats import Number, number, whole_percent

_VIEW = re.compile(r'viewBox="0 0 (\d+) (\d+)"')
_KEY = re.compile(r"<li><svg[^>]*>(.*?)</svg> (.*?)</li>")  # as `key` writes them

# Okabe and Ito's colours, which the colour-blind can tell apart, darkened or lightened for contrast with the paper.
PALETTE = """
:root { --paper: #fff; --ink: #1c1e21; --muted: #5d636b; --grid: #e2e5e9; --shade: #8a919a26;
  --c0: #0072b2; --c1: #c75300; --c2: #00805d; --c3: #a8457f; --c4: #8f6b00; --c5: #3f93c7; --c6: #6b4ea0;
  --c7: #868e98; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e8eaed; --muted: #a2a9b3;
  --grid: #31363d; --shade: #8a919a33; --c0: #5ab4f0; --c1: #f59150; --c2: #3fc796; --c3: #e592c3; --c4: #e6bd48;
  --c5: #9ad4f7; --c6: #b9a1ee; --c7: #8f97a1; } }
"""
MARKS = """
svg.figure { font: 12px system-ui, Helvetica, Arial, DejaVu Sans, sans-serif; fill: var(--ink); }
svg.figure .muted { fill: var(--muted); font-size: 11px; }
svg.figure .title { font-weight: 600; font-size: 13.5px; }
svg.figure .grid { stroke: var(--grid); }
svg.figure .shade { fill: var(--shade); }
svg.figure .line { fill: none; stroke-width: 1.8; }
svg.figure .band { opacity: .18; }
svg.figure .limit { stroke: var(--ink); stroke-width: 1.2; }
svg.figure .base { stroke: var(--muted); stroke-width: 1.2; stroke-dasharray: 5 4; }
svg.figure .whisker { stroke: var(--ink); stroke-width: 1.4; }
svg.figure .ring { fill: none; stroke: var(--ink); stroke-width: 2; }
svg.figure text.cell { pointer-events: none; }
"""
STYLE = PALETTE + MARKS.lstrip()
COLOURS = 7  # c0 to c6 tell series apart
GREY = 7  # c7 is for controls
CIRCLE, CROSS = "M-3.4 0A3.4 3.4 0 1 0 3.4 0A3.4 3.4 0 1 0-3.4 0Z", "M-3-3L3 3M-3 3L3-3"
SHARES = (0, 0.25, 0.5, 0.75, 1)  # marked on a scale of shares
SHAPES = (CIRCLE, "M-3-3H3V3H-3Z", "M0-4L4 3H-4Z", "M0-4.4L4.4 0L0 4.4L-4.4 0Z", "M0 4L-4-3H4Z")


Points = Sequence[tuple[Number, Number]]


@dataclass(frozen=True)
class Axes:
    """A picture of `width` by `height` points whose inner frame shows the data ranges `x` and `y`.

    With `log` the y axis is logarithmic, and values under `y[0]` are drawn on its lower edge.
    """

    x: tuple[Number, Number]
    y: tuple[Number, Number]
    log: bool = False
    width: int = 420
    height: int = 280
    left: int = 52
    right: int = 14
    top: int = 48
    bottom: int = 40

    def at(self, x: Number, y: Number) -> tuple[Number, Number]:
        """Return where a data point lies in the picture."""
        low, high, value = (log10(max(v, self.y[0])) if self.log else v for v in (*self.y, y))
        across = (x - self.x[0]) / (self.x[1] - self.x[0] or 1)
        up = (value - low) / (high - low or 1)
        inner_width, inner_height = self.width - self.left - self.right, self.height - self.top - self.bottom
        return round(self.left + across * inner_width, 2), round(self.top + (1 - up) * inner_height, 2)

    def path(self, points: Iterable[tuple[Number, Number]]) -> str:
        """Return the path data of a line through data points."""
        return "M" + "L".join("{} {}".format(*self.at(x, y)) for x, y in points)

    def line(self, points: Sequence[tuple[Number, Number]], colour: int) -> str:
        """Draw a line through data points."""
        return f'<path class="line" stroke="var(--c{colour})" d="{self.path(points)}"/>' if points else ""

    def band(self, points: Sequence[tuple[Number, Number, Number]], colour: int) -> str:
        """Draw the band of y ± spread through data points `(x, y, spread)`."""
        upper, lower = ([(x, y + side * spread) for x, y, spread in points] for side in (1, -1))
        return self.area(lower, upper, f'class="band" {fill(colour)}')

    def area(self, lower: Points, upper: Points, paint: str) -> str:
        """Fill what lies between two lines; `paint` is what its attributes say of colour."""
        return f'<path {paint} d="{self.path([*upper, *reversed(lower)])}Z"/>'

    def _box(self, start: tuple[Number, Number], end: tuple[Number, Number]) -> str:
        """Return the attributes of the rectangle between two data points."""
        (x1, y1), (x2, y2) = self.at(*start), self.at(*end)
        return f'x="{min(x1, x2)}" y="{min(y1, y2)}" width="{abs(x2 - x1):.2f}" height="{abs(y2 - y1):.2f}"'

    def cell(self, start: tuple[Number, Number], end: tuple[Number, Number], title: str, paint: str) -> str:
        """Fill the rectangle between two data points; `paint` is what its attributes say of colour."""
        return f"<rect {self._box(start, end)} {paint}><title>{escape(title)}</title></rect>"

    def inside(self, point: tuple[Number, Number], text: str, *, dy: Number = 4, size: Number = 12) -> str:
        """Write in the middle of a cell."""
        x, y = self.at(*point)
        return (
            f'<text class="cell" x="{x}" y="{y + dy:.2f}" text-anchor="middle" font-size="{size:.3g}">'
            f"{escape(text)}</text>"
        )

    def mark(self, point: tuple[Number, Number], title: str, colour: int, *, shape: str = CIRCLE) -> str:
        """Draw one data point that tells `title` when pointed at."""
        x, y = self.at(*point)
        paint = f"var(--c{colour})"
        return (
            f'<path class="mark" transform="translate({x} {y})" d="{shape}" fill="{paint}" stroke="{paint}">'
            f"<title>{escape(title)}</title></path>"
        )

    def ring(self, point: tuple[Number, Number]) -> str:
        """Draw a ring around a data point."""
        x, y = self.at(*point)
        return f'<circle class="ring" cx="{x}" cy="{y}" r="8"/>'

    def frame(self, start: tuple[Number, Number], end: tuple[Number, Number]) -> str:
        """Draw a frame around the rectangle between two data points."""
        return f'<rect class="ring" {self._box(start, end)} rx="2"/>'

    def segment(self, start: tuple[Number, Number], end: tuple[Number, Number], kind: str, title: str = "") -> str:
        """Draw a straight line of one of the kinds in `STYLE`."""
        (x1, y1), (x2, y2) = self.at(*start), self.at(*end)
        told = f"<title>{escape(title)}</title>" if title else ""
        return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}">{told}</line>'

    def horizontal(self, y: Number, kind: str, title: str) -> str:
        """Draw a line across the frame that tells `title` when pointed at."""
        return self.segment((self.x[0], y), (self.x[1], y), kind, title)

    def vertical(self, x: Number, kind: str) -> str:
        """Draw a line up the frame."""
        return self.segment((x, self.y[0]), (x, self.y[1]), kind)

    def shade(self, start: Number, end: Number, title: str) -> str:
        """Shade the frame between two x values."""
        return self.cell((start, self.y[0]), (end, self.y[1]), title, 'class="shade"')

    def text(
        self, point: tuple[Number, Number], text: str, *, dx: Number = 0, dy: Number = 0, anchor: str = "start"
    ) -> str:
        """Write beside a data point."""
        x, y = self.at(*point)
        return f'<text class="muted" x="{x + dx:.2f}" y="{y + dy:.2f}" text-anchor="{anchor}">{escape(text)}</text>'

    def scales(self, x_ticks: Sequence[Number], y_ticks: Sequence[Number], *, x_name: str, share: bool = False) -> str:
        """Draw the grid with its numbers and the name of the x axis; `share` writes y in per cent."""
        low = self.y[0]
        across = [self.text((x, low), number(x), dy=15, anchor="middle") for x in x_ticks]
        up = [
            self.segment((self.x[0], y), (self.x[1], y), "grid")
            + self.text((self.x[0], y), whole_percent(y) if share else number(y), dx=-6, dy=4, anchor="end")
            for y in y_ticks
        ]
        middle = sum(self.x) / 2
        return "".join([*up, *across, self.text((middle, low), x_name, dy=31, anchor="middle")])

    def upright(self, ticks: Sequence[Number], *, share: bool = False) -> str:
        """Draw a grid of upright lines with their numbers below; `share` writes them in per cent."""
        text = whole_percent if share else number
        below = self.y[0]
        return "".join(self.vertical(x, "grid") + self.text((x, below), text(x), dy=16, anchor="middle") for x in ticks)

    def picture(self, title: str, note: str, marks: Iterable[str]) -> str:
        """Return the whole SVG element."""
        head = f'<text class="title" x="6" y="17">{escape(title)}</text>'
        under = f'<text class="muted" x="6" y="34">{escape(note)}</text>' if note else ""
        return (
            f'<svg class="figure" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(title)}">'
            f"{head}{under}{''.join(marks)}</svg>"
        )


def ticks(low: Number, high: Number) -> list[Number]:
    """Return four to eight round numbers (1, 2 or 5 times a power of ten) between two values."""
    power = 10.0 ** floor(log10((high - low) / 4))
    step = next(m * power for m in (5, 2, 1) if (high - low) / (m * power) >= 4)
    return [round(i * step, 10) for i in range(ceil(low / step), floor(high / step) + 1)]


def whole_ticks(last: int) -> list[Number]:
    """Return at most about ten whole numbers from 0 to `last`."""
    return list(range(0, last + 1, max(1, ceil(last / 10))))


def powers_of_ten(low: Number, high: Number) -> list[Number]:
    """Return the powers of ten from `low` to `high`."""
    return [10.0**i for i in range(ceil(log10(low)), floor(log10(high)) + 1)]


def padded(values: Iterable[Number]) -> tuple[Number, Number]:
    """Return the range of some values with 6 % of air at either end."""
    listed = list(values)
    low, high = min(listed), max(listed)
    air = 0.06 * (high - low) or 1.0
    return low - air, high + air


def dot(colour: int, shape: str = CIRCLE) -> str:
    """Return the mark of a series, for a key."""
    return f'<path d="{shape}" fill="var(--c{colour})" stroke="var(--c{colour})"/>'


def stroke(kind: str, colour: int | None = None) -> str:
    """Return a line of one of the kinds in `STYLE`, for a key."""
    paint = "" if colour is None else f' stroke="var(--c{colour})"'
    return f'<line class="{kind}"{paint} x1="-9" x2="9"/>'


def fill(colour: int, opacity: float = 1.0) -> str:
    """Return the attributes that fill a shape with a colour."""
    return f'fill="var(--c{colour})"' + ("" if opacity == 1 else f' fill-opacity="{opacity:.2f}"')


def swatch(paint: str) -> str:
    """Return a patch for a key; `paint` is what its attributes say of colour."""
    return f'<rect x="-8" y="-6" width="16" height="12" {paint}/>'


def key(entries: Iterable[tuple[str, str]]) -> str:
    """Return the key to a figure: an HTML list of (swatch, label)."""
    items = (
        f'<li><svg class="figure" viewBox="-9 -6 18 12" width="18" height="12" aria-hidden="true">{swatch}</svg> '
        f"{escape(label)}</li>"
        for swatch, label in entries
    )
    return f'<ul class="key">{"".join(items)}</ul>'


def stand_alone(picture: str, key_list: str = "", *, schemes: bool = False) -> str:
    """Return a figure as a file of its own: in the light scheme, on paper, with its key below, and no CSS variable.

    Programs that place pictures (office programs, LaTeX by way of Inkscape) know neither variables nor schemes; with
    `schemes` it is for a browser, and follows the light or dark scheme of the page that it stands on.
    """
    width, height = (int(n) for n in _VIEW.search(picture).groups())  # pyright: ignore[reportOptionalMemberAccess]
    entries = [(swatch, label, 26 + 6.3 * len(unescape(label))) for swatch, label in _KEY.findall(key_list)]
    width = max([width, *(ceil(10 + wide) for *_, wide in entries)])
    placed, x, y = [], 10.0, height + 12
    for swatch, label, wide in entries:
        if x > 10 and x + wide > width:
            x, y = 10.0, y + 18
        placed.append(
            f'<g transform="translate({x + 9:.1f} {y})">{swatch}</g><text x="{x + 22:.1f}" y="{y + 4}">{label}</text>'
        )
        x += wide + 8
    height = y + 14 if placed else height
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", STYLE.partition("@media")[0]))
    inner = re.sub(r"^<svg[^>]*>|</svg>$", "", picture.strip())
    label = re.search(r' aria-label="[^"]*"', picture)
    style = STYLE if schemes else MARKS
    whole = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"{label[0] if label else ""}><style>{style}</style>'
        f'<rect width="{width}" height="{height}" fill="var(--paper)"/>{inner}{"".join(placed)}</svg>\n'
    )
    return whole if schemes else re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], whole)
