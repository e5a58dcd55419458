"""What a suffix does, drawn: the cosine with the direction over layers, what heads write, where they look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from refusal import svg
from refusal.formats import number
from refusal.labels import CLASSES
from refusal.report.measured import Measured
from refusal.svg import Axes

# Of the conditions; the random suffix is a control, so grey.
COLOURS = CLASSES | {"random suffix": svg.GREY, "suffix": 2, "permuted suffix": 4, "suffix first": 6}
BANDS = ("harmful", "random suffix", "suffix", "harmless")  # those of the paper's figure; the others are lines only
BAR, GAP = 9, 8  # points, of one bar and between groups


@dataclass(frozen=True)
class Curve:
    """Means and standard deviations layer by layer, and how they are drawn."""

    name: str
    mean: Sequence[float]
    sd: Sequence[float]
    n: int
    colour: int
    shape: str
    band: bool = True


def layered(
    curves: Sequence[Curve],
    layers: Sequence[str],
    title: str,
    note: str,
    *,
    control: Sequence[float] = (),
    y: tuple[float, float] | None = None,
) -> str:
    """Draw curves over layers, the last of which is "final": means, and bands of ± one standard deviation.

    `control` is a dashed line; `y` is the scale where several figures share one.
    """
    last = len(layers) - 1
    axes = Axes((0, last), y or svg.padded([*extent(curves), *control]), height=320, right=22)
    shown = [x for x in svg.whole_ticks(last - 1) if (last - x) * 10 >= last]  # the others would lie under "final"
    marks = [axes.scales(shown, svg.ticks(*axes.y), x_name="layer (input of the block)")]
    marks += [axes.text((last, axes.y[0]), layers[-1], dy=15, anchor="middle")]
    marks += [f'<path class="base" fill="none" d="{axes.path(list(enumerate(control)))}"/>'] if control else []
    for curve in curves:
        points = [*zip(range(len(layers)), curve.mean, curve.sd, strict=True)]
        marks += [axes.band(points, curve.colour)] if curve.band else []
    for curve in reversed(curves):  # the first on top
        marks.append(axes.line(list(enumerate(curve.mean)), curve.colour))
        for x, (m, s) in enumerate(zip(curve.mean, curve.sd, strict=True)):
            told = f"{curve.name}, layer {layers[x]}: {number(m)} ± {number(s)} (n = {curve.n})"
            marks.append(axes.mark((x, m), told, curve.colour, shape=curve.shape))
    return axes.picture(title, note, marks)


def extent(curves: Sequence[Curve]) -> list[float]:
    """Return the edges of all bands."""
    return [m + side * s for curve in curves for m, s in zip(curve.mean, curve.sd, strict=True) for side in (-1, 1)]


def layered_key(curves: Sequence[Curve], *, control: str = "") -> str:
    """Return the key to `layered`."""
    marks = [(svg.dot(curve.colour, curve.shape), curve.name) for curve in curves]
    return svg.key([*marks, *([(svg.stroke("base"), control)] if control else [])])


def over_layers(record: Measured) -> str:
    """Draw the last token's cosine with the direction: mean over prompts, ± one standard deviation (Figure 5)."""
    control = record.at("harmful", "random")[0]
    title, note = "Cosine with the direction, last token", "mean ± 1 sd over prompts"
    return layered(_curves(record), record.axes["layer"], title, note, control=control)


def over_layers_key(record: Measured) -> str:
    """Return the key to `over_layers`."""
    return layered_key(_curves(record), control="harmful, a random direction")


def _curves(record: Measured) -> list[Curve]:
    """Return a curve a condition; those that the paper's figure does not have are lines without a band."""
    return [
        Curve(name, *record.at(name, "found"), n, COLOURS[name], svg.SHAPES[i % len(svg.SHAPES)], name in BANDS)
        for i, (name, n) in enumerate(record.n.items())
    ]


def bars(
    rows: Sequence[tuple[str, Mapping[str, tuple[float, float]]]],
    title: str,
    note: str,
    *,
    colours: Mapping[str, int] = COLOURS,
) -> str:
    """Draw a group of bars a row: label → by condition mean and spread, as a whisker; pointing at a bar tells both."""
    series = list(rows[0][1])
    every = [mean + side * spread for _, by in rows for mean, spread in by.values() for side in (-1, 1)]
    low, high = min(0.0, *every), max(0.0, *every)
    air = 0.04 * (high - low) or 1.0
    group = BAR * len(series) + GAP
    axes = Axes(
        (low - air if low else low, high + air), (0, len(rows)), height=group * len(rows) + 88, left=96, bottom=36
    )
    marks = [
        axes.vertical(x, "grid") + axes.text((x, 0), number(x), dy=16, anchor="middle") for x in svg.ticks(*axes.x)
    ]
    for i, (label, by) in enumerate(rows):
        y = axes.at(0, len(rows) - i)[1] + GAP / 2
        marks.append(axes.text((axes.x[0], len(rows) - i - 0.5), label, dx=-8, dy=4, anchor="end"))
        for j, (name, (mean, spread)) in enumerate(by.items()):
            start, end = sorted((axes.at(0, 0)[0], axes.at(mean, 0)[0]))
            told, middle = escape(f"{label}, {name}: {number(mean)} ± {number(spread)}"), y + j * BAR + (BAR - 1) / 2
            marks.append(
                f'<rect x="{start}" y="{y + j * BAR:.2f}" width="{max(end - start, 0.5):.2f}" height="{BAR - 1}" '
                f'fill="var(--c{colours[name]})"><title>{told}</title></rect>'
            )
            low_end, high_end = (axes.at(mean + side * spread, 0)[0] for side in (-1, 1))
            marks.append(f'<line class="whisker" x1="{low_end}" x2="{high_end}" y1="{middle:.2f}" y2="{middle:.2f}"/>')
    return axes.picture(title, note, [*marks, axes.vertical(0, "limit")])


def bars_key(names: Sequence[str], *, colours: Mapping[str, int] = COLOURS) -> str:
    """Return the key to `bars`."""
    return svg.key([(svg.dot(colours[name], svg.SHAPES[1]), name) for name in names])
