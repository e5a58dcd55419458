"""What several analyses draw alike: curves over layers, and groups of bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from refusal import svg
from refusal.formats import Number, number
from refusal.labels import CLASSES
from refusal.svg import Axes

BAR, GAP = 9, 8  # points, of one bar and between groups


@dataclass(frozen=True)
class Curve:
    """Means and standard deviations layer by layer, and how they are drawn."""

    name: str
    mean: Sequence[Number]
    sd: Sequence[Number]
    n: int
    colour: int
    shape: str
    band: bool = True

    @property
    def edges(self) -> list[Number]:
        """Return the edges of its band."""
        return [m + side * s for m, s in zip(self.mean, self.sd, strict=True) for side in (-1, 1)]


@dataclass(frozen=True)
class Bar:
    """A value with the ends of its whisker, and what it tells when pointed at."""

    value: Number
    low: Number
    high: Number
    told: str


def layered(
    curves: Sequence[Curve],
    layers: Sequence[str],
    title: str,
    note: str,
    *,
    y: tuple[Number, Number],
    what: str = "layer",
    end: int | None = None,
    random: Sequence[Sequence[Number]] = (),
    dashed: Sequence[Number] = (),
    chosen: int | None = None,
    zero: bool = False,
    size: tuple[int, int] = (420, 320),
) -> str:
    """Draw curves over layers, the last on top: means with bands of ± one standard deviation, on the scale `y`.

    A last layer that is no number, such as "final", stands beside the others; `end` is the last layer of the scale.
    `random` are grey lines, `dashed` is one more line; `chosen` marks the layer of the direction, `zero` the value 0.
    """
    at = [int(label) if label.isdecimal() else i for i, label in enumerate(layers)]
    last = at[-1] if end is None else end
    axes = Axes((0, max(last, 1)), y, width=size[0], height=size[1], right=22)
    ticks, x_name = svg.whole_ticks(last), "layer"
    if not layers[-1].isdecimal():  # the others must not lie under it
        ticks, x_name = [x for x in svg.whole_ticks(last - 1) if (last - x) * 10 >= last], "layer (input of the block)"
    marks = [axes.scales(ticks, svg.ticks(*y), x_name=x_name)]
    marks += [] if layers[-1].isdecimal() else [axes.text((last, y[0]), layers[-1], dy=15, anchor="middle")]
    marks += [axes.vertical(chosen, "base")] if chosen is not None else []
    marks += [axes.horizontal(0, "limit", "0")] if zero else []
    marks += [f'<path class="base" fill="none" d="{axes.path(zip(at, dashed, strict=True))}"/>'] if dashed else []
    marks += [axes.line([*zip(at, values, strict=True)], svg.GREY) for values in random]
    marks += [axes.band([*zip(at, one.mean, one.sd, strict=True)], one.colour) for one in curves if one.band]
    for one in curves:
        marks.append(axes.line([*zip(at, one.mean, strict=True)], one.colour))
        for x, label, m, s in zip(at, layers, one.mean, one.sd, strict=True):
            told = f"{one.name}, {what} {label}: {number(m)} ± {number(s)} (n = {one.n})"
            marks.append(axes.mark((x, m), told, one.colour, shape=one.shape))
    return axes.picture(title, note, marks)


def layered_key(curves: Sequence[Curve], *more: tuple[str, str]) -> str:
    """Return the key to `layered`, with `more` marks and what they mean."""
    return svg.key([*((svg.dot(one.colour, one.shape), one.name) for one in curves), *more])


def of_classes(words: str = "prompts", *, shape: str = "") -> list[tuple[str, str]]:
    """Return the marks of both kinds of prompts, for a key."""
    return [(svg.dot(colour, shape or svg.SHAPES[colour]), f"{name} {words}") for name, colour in CLASSES.items()]


def spread(mean: Number, sd: Number) -> Bar:
    """Return the bar of a mean with what lies on either side of it."""
    return Bar(mean, mean - sd, mean + sd, f"{number(mean)} ± {number(sd)}")


def bars(
    rows: Sequence[tuple[str, Mapping[str, Bar]]],
    title: str,
    note: str,
    *,
    colours: Mapping[str, int],
    share: bool = False,
    left: int = 96,
) -> str:
    """Draw a group of bars a row: label → series → bar with its whisker. `share` has a scale from 0 to 100 %."""
    every = [end for _, by in rows for bar in by.values() for end in (bar.low, bar.high)]
    low, high = min(0.0, *every), max(0.0, *every)
    air = 0.04 * (high - low) or 1.0
    group = BAR * max(len(by) for _, by in rows) + GAP
    x = (0, 1) if share else (low - air if low else low, high + air)
    right = 22 if share else 14
    axes = Axes(x, (0, len(rows)), height=group * len(rows) + 88, left=left, right=right, bottom=36)
    marks = [axes.upright(svg.SHARES if share else svg.ticks(*axes.x), share=share)]
    for i, (label, by) in enumerate(rows):
        y = axes.at(0, len(rows) - i)[1] + GAP / 2
        marks.append(axes.text((axes.x[0], len(rows) - i - 0.5), label, dx=-8, dy=4, anchor="end"))
        for j, (name, bar) in enumerate(by.items()):
            start, end, first, second = (axes.at(value, 0)[0] for value in (0, bar.value, bar.low, bar.high))
            start, end = sorted((start, end))
            top, middle = y + j * BAR, y + j * BAR + (BAR - 1) / 2
            marks.append(
                f'<rect x="{start}" y="{top:.2f}" width="{max(end - start, 0.5):.2f}" height="{BAR - 1}" '
                f"{svg.fill(colours[name])}><title>{escape(f'{label}, {name}: {bar.told}')}</title></rect>"
                f'<line class="whisker" x1="{first}" x2="{second}" y1="{middle:.2f}" y2="{middle:.2f}"/>'
            )
    return axes.picture(title, note, [*marks, axes.vertical(0, "limit")])


def bars_key(colours: Mapping[str, int]) -> str:
    """Return the key to `bars`."""
    return svg.key([(svg.dot(colour, svg.SHAPES[1]), name) for name, colour in colours.items()])
