"""Records of a run → figures: pure functions from rows to SVG text, for the report, the explorer and the README.

Every mark carries its numbers in a `<title>`. The page that shows a figure brings `svg.STYLE` along, except for
`headline`, which stands alone.
"""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from math import log10

from refusal import svg
from refusal.formats import (
    Number,
    coefficient_text,
    minus,
    number,
    percent,
    position_label,
    rate_text,
    shortened,
)
from refusal.labels import CLASSES, Row, in_order, label_of, name_of
from refusal.results import rate_in
from refusal.rule import (
    HIGH_KL,
    LATE_LAYER,
    LOW_INDUCE,
    NO_DIFFERENCE,
    NOT_A_NUMBER,
    NOT_SCORED,
    SELECTED,
    SURVIVOR,
)
from refusal.svg import Axes

SCORES = {
    "bypass": ("Bypass score", "harmful prompts, ablated: lower is better"),
    "induce": ("Induce score", "harmless prompts, added: higher is better"),
    "kl": ("KL divergence", "nats, harmless prompts, ablated: lower is better"),
}
# Verdict → the letter in its cell, how much of its colour, and which: a loser is told without colour too.
CELLS = {
    SELECTED: ("★", 0.75, 1),
    SURVIVOR: ("", 0.45, 2),
    HIGH_KL: ("K", 0.3, 3),
    LOW_INDUCE: ("I", 0.3, 4),
    LATE_LAYER: ("L", 0.25, 7),
    NO_DIFFERENCE: ("=", 0.25, 7),
    NOT_A_NUMBER: ("?", 0.25, 7),
    NOT_SCORED: ("·", 0.1, 7),
}
KL_FLOOR = 1e-4  # smaller divergences, and 0, have the same colour as this one
DARKEST = 0.6  # so that the number in a cell can be read
NARROWEST = 26  # points, of a cell with a number in it
LONGEST = 14  # characters of a position's label


def rates(rows: Sequence[tuple[str, Row]], title: str, *, measure: str = "refused", word: str = "") -> str:
    """Draw a bar an intervention that has the measure (see `results.rate_in`), with the whiskers of its 95 % interval.

    `word` is what the rate counts, where that is not what the measure is called.
    """
    bars = [
        (name, name_of(name, row.get("coefficient")), rate) for name, row in rows if (rate := rate_in(row, measure))
    ]
    axes = Axes((0, 1), (0, len(bars)), height=58 + 26 * len(bars), left=200, right=60, top=28, bottom=30)
    marks = [axes.upright(svg.SHARES, share=True)]
    for i, (name, label, cell) in enumerate(bars):
        y, rate = len(bars) - i - 0.5, cell["rate"] or 0.0  # null when nothing was counted
        (x1, top), (x2, bottom) = axes.at(0, y + 0.3), axes.at(rate, y - 0.3)
        marks += [
            axes.text((0, y), label, dx=-8, dy=4, anchor="end"),
            f'<rect x="{x1}" y="{top}" width="{x2 - x1:.2f}" height="{bottom - top:.2f}" rx="2" '
            f'fill="var(--c{label_of(name).colour})"><title>{escape(f"{label}: {rate_text(cell, word or measure)}")}'
            "</title></rect>",
            axes.segment((cell["low"], y), (cell["high"], y), "whisker"),
            *(axes.segment((end, y - 0.14), (end, y + 0.14), "whisker") for end in (cell["low"], cell["high"])),
            axes.text((1, y), percent(cell["rate"]), dx=8, dy=4),
        ]
    return axes.picture(title, "", marks)


def scores(rows: Iterable[Row], score: str, *, tokens: Sequence[str] = (), note: str = "") -> str:
    """Draw one score ("bypass", "induce" or "kl") of every candidate: a cell a candidate, more colour is better.

    The chosen candidate has a frame; a score that is not a number is a cross. Cells that are wide enough say their
    number. `note` stands behind what the score is.
    """
    listed = list(rows)
    rank = {id(row): (-1 if score != "induce" else 1) * _height(row[score], score) for row in listed}
    known = [rank[id(row)] for row in listed if row[score] is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)

    def paint(row: Row) -> tuple[str, float, int]:
        if row[score] is None:
            return "×", 0.0, 0
        return _short(row[score], score), DARKEST * (rank[id(row)] - low) / (high - low or 1), 0

    title, what = SCORES[score]
    return _grid(listed, f"{title} of every candidate", f"{what}{note}", tokens, paint)


def verdicts(
    rows: Iterable[Row], *, tokens: Sequence[str] = (), title: str = "The rule's verdict on every candidate"
) -> str:
    """Draw what the selection rule says of every candidate: a cell a layer and position, a letter a reason."""
    return _grid(list(rows), title, "", tokens, _verdict)


def verdicts_key(rows: Iterable[Row]) -> str:
    """Return the key to `verdicts`: those that are there."""
    there = {row["verdict"] for row in rows}
    return svg.key([(_swatch(*cell), name) for name, cell in CELLS.items() if name in there])


def runs(rows: Sequence[tuple[str, Sequence[tuple[str, Row]]]], title: str, note: str) -> str:
    """Draw a line a run with a mark and a whisker a condition: refusals with nothing done, intervened, controlled."""
    axes = Axes((0, 1), (0, len(rows)), height=92 + 38 * len(rows), left=128, right=22)
    marks = [axes.upright(svg.SHARES, share=True)]
    for i, (name, conditions) in enumerate(rows):
        middle = len(rows) - i - 0.5
        marks.append(axes.text((0, middle), shortened(name, LONGEST + 5), dx=-8, dy=4, anchor="end"))
        for j, (condition, row) in enumerate(conditions):
            y = middle + 0.26 * (1 - 2 * j / max(1, len(conditions) - 1))
            colour, shape = label_of(condition).colour, svg.SHAPES[j % len(svg.SHAPES)]
            marks.append(axes.segment((row["low"], y), (row["high"], y), "whisker"))
            told = f"{name}, {name_of(condition)}: {rate_text(row, 'refused')}"
            marks.append(axes.mark((row["rate"] or 0.0, y), told, colour, shape=shape))
    return axes.picture(title, note, marks)


def runs_key(conditions: Sequence[str]) -> str:
    """Return the key to `runs`."""
    listed = enumerate(map(label_of, conditions))
    return svg.key([(svg.dot(one.colour, svg.SHAPES[j % len(svg.SHAPES)]), one.name) for j, one in listed])


def projections(record: Row, *, layer: int) -> str:
    """Draw the component on the direction's unit vector over layers: mean ± one standard deviation of either set."""
    sets = [(name, record[name], colour) for name, colour in CLASSES.items()]
    layers = record["layers"]
    bands = {name: list(zip(layers, row["mean"], row["sd"], strict=True)) for name, row, _ in sets}
    y = svg.padded(m + side * s for band in bands.values() for _, m, s in band for side in (-1, 1))
    axes = Axes((layers[0], layers[-1]), y, right=22)
    marks = [axes.scales(svg.whole_ticks(layers[-1]), svg.ticks(*y), x_name="layer")]
    aside = (5, "start") if 2 * layer < layers[0] + layers[-1] else (-5, "end")  # where there is room
    marks.append(axes.vertical(layer, "base"))
    marks.append(axes.text((layer, y[1]), f"layer {layer}, chosen", dx=aside[0], dy=11, anchor=aside[1]))
    for name, row, colour in sets:
        marks.append(axes.band(bands[name], colour))
        marks.append(axes.line([(x, m) for x, m, _ in bands[name]], colour))
        for x, mean, sd in bands[name]:
            title = f"{name}, layer {x}: {number(mean)} ± {number(sd)} (n = {row['n']})"
            marks.append(axes.mark((x, mean), title, colour, shape=svg.SHAPES[colour]))
    return axes.picture("Component on the direction", "mean ± 1 sd over test prompts, at each block's input", marks)


def projections_key() -> str:
    """Return the key to `projections`."""
    return svg.key([(svg.dot(colour, svg.SHAPES[colour]), f"{name} prompts") for name, colour in CLASSES.items()])


def coefficients(record: Row, *, measure: str = "refused", further: Sequence[Row] = ()) -> str:
    """Draw the share refused (or exact) of harmless prompts over the coefficient: the direction and a random one.

    `further` are rows of `results.json` with the direction at other coefficients, on all test prompts.
    """
    added = label_of("addition").colour
    xs = [*record["coefficients"], *(row["coefficient"] for row in further)]
    low, high = min(0, *xs), max(0, *xs)
    axes = Axes((low, high if high > low else 1), (0, 1), right=22)
    marks = [axes.scales(svg.ticks(*axes.x), svg.SHARES, x_name="coefficient c", share=True)]

    def point(name: str, x: Number, cell: Row, colour: int, shape: str) -> str:
        bar = axes.segment((x, cell["low"]), (x, cell["high"]), "whisker")
        title = f"{name}, {coefficient_text(x)}: {rate_text(cell, measure)}"
        return bar + axes.mark((x, cell["rate"] or 0.0), title, colour, shape=shape)

    for name, colour, shape in (("random", svg.GREY, svg.SHAPES[1]), ("direction", added, svg.SHAPES[0])):
        cells = [(r["coefficient"], r[measure]) for r in record[name] if measure in r]
        marks.append(axes.line([(x, cell["rate"]) for x, cell in cells], colour))
        marks += [point(name, x, cell, colour, shape) for x, cell in cells]
    for row in further:
        if cell := rate_in(row, measure):
            marks.append(point("direction, all test prompts", row["coefficient"], cell, 4, svg.SHAPES[3]))
    what = "refused" if measure == "refused" else "answered exactly"
    title = f"Harmless prompts {what}, by coefficient"
    return axes.picture(title, "c · r added at the chosen layer; 95 % intervals", marks)


def coefficients_key(*, further: bool = False) -> str:
    """Return the key to `coefficients`."""
    added, random = svg.dot(label_of("addition").colour), svg.dot(svg.GREY, svg.SHAPES[1])
    marks = [(added, "the direction"), (random, "a random direction of the same length")]
    return svg.key([*marks, *([(svg.dot(4, svg.SHAPES[3]), "the direction, on all test prompts")] if further else [])])


def headline(results: Row) -> str:
    """Return the stand-alone picture of a run: refusals of harmful and harmless prompts by intervention.

    It brings its own paper and the colours of both schemes, so it can be shown as an image anywhere.
    """
    panels = [name for name in ("harmful", "harmless") if results.get(name)]
    pictures = [rates(in_order(results[name]), f"{name.capitalize()} prompts refused") for name in panels]
    heights = [58 + 26 * len(in_order(results[name])) for name in panels]
    width, height = 436 * len(panels) + 20, max(heights) + 52
    placed = (
        picture.replace("<svg ", f'<svg x="{18 + 436 * i}" y="44" width="420" height="{tall}" ', 1)
        for i, (picture, tall) in enumerate(zip(pictures, heights, strict=True))
    )
    chosen = f"Refusals with and without one direction, read at layer {results['layer']}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(chosen)}"><style>{svg.STYLE}</style>'
        f'<rect width="{width}" height="{height}" rx="8" fill="var(--paper)"/>'
        f'<text x="24" y="30" class="title">{escape(chosen)}</text>{"".join(placed)}</svg>\n'
    )


def _height(value: Number | None, score: str) -> float:
    """Return where a score lies on its scale of colours: KL by its logarithm."""
    value = 0.0 if value is None else value
    return log10(max(value, KL_FLOOR)) if score == "kl" else value


def _short(value: Number, score: str) -> str:
    """Return a score as it stands in a cell: two digits, of a divergence one."""
    if score != "kl":
        return minus(f"{value:.2g}")
    return "<.0001" if value < KL_FLOOR else f"{value:.1g}".removeprefix("0")


def _verdict(row: Row) -> tuple[str, float, int]:
    return CELLS.get(row["verdict"], ("?", 0.1, svg.GREY))


def _swatch(letter: str, share: float, colour: int) -> str:
    return f'{svg.swatch(svg.fill(colour, share))}<text class="cell" y="4" text-anchor="middle">{letter}</text>'


def _grid(
    rows: Sequence[Row],
    title: str,
    note: str,
    tokens: Sequence[str],
    paint: Callable[[Row], tuple[str, float, int]],
) -> str:
    """Draw a cell a candidate, layers across and positions down; `paint` gives its text, opacity and colour."""
    positions, last = sorted({row["position"] for row in rows}), max(row["layer"] for row in rows)
    axes = Axes((-0.5, last + 0.5), (0, len(positions)), height=26 * len(positions) + 92, left=98, right=8)
    wide = (axes.width - axes.left - axes.right) / (last + 1)
    marks = [axes.text((x, 0), number(x), dy=15, anchor="middle") for x in svg.whole_ticks(last)]
    marks.append(axes.text((last / 2, 0), "layer", dy=31, anchor="middle"))
    names = {position: position_label(position, tokens) for position in positions}
    for i, position in enumerate(positions):
        label = shortened(names[position], LONGEST)
        marks.append(axes.text((-0.5, len(positions) - i - 0.5), label, dx=-8, dy=4, anchor="end"))
    for row in rows:
        x, y = row["layer"], len(positions) - positions.index(row["position"]) - 0.5
        text, share, colour = paint(row)
        told = {name: "not a number" if row[name] is None else number(row[name]) for name in SCORES}
        title_of = f"position {names[row['position']]}, layer {x}: {row['verdict']}; " + ", ".join(
            f"{SCORES[name][0].lower() if name != 'kl' else 'KL'} {value}" for name, value in told.items()
        )
        fill = f'class="cell" {svg.fill(colour, share)}'
        marks.append(axes.cell((x - 0.48, y - 0.46), (x + 0.48, y + 0.46), title_of, fill))
        if wide >= max(NARROWEST, 5.2 * len(text)) or len(text) == 1:
            marks.append(axes.inside((x, y), text, dy=3.5, size=min(9.5, wide * 0.8)))
    chosen = [(row["layer"], positions.index(row["position"])) for row in rows if row["verdict"] == SELECTED]
    marks += [axes.frame((x - 0.5, len(positions) - i - 1), (x + 0.5, len(positions) - i)) for x, i in chosen]
    return axes.picture(title, note, marks)
