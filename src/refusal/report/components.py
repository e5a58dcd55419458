"""Which parts of the network write the direction, drawn and said: by layer for both classes, and where they differ."""

from collections.abc import Sequence
from math import sqrt

from refusal import svg
from refusal.formats import number, percent, signed
from refusal.labels import CLASSES
from refusal.report.measured import Measured
from refusal.report.section import Section
from refusal.report.suffix_figures import bars, bars_key
from refusal.statistics import Z95
from refusal.svg import Axes

APART = {"harmful − harmless": 2, "the same along a random direction": svg.GREY}
KINDS = ("attention", "MLP")  # drawn over layers
PARTS, HEADS = 10, 8  # shown as bars
HALF = 0.5
Difference = tuple[float, float]  # of the means, and half the width of its 95 % interval


def section(record: Measured) -> Section:
    """Say which parts write the component along the direction, and by how much more on harmful prompts."""
    wholes = record.axes["component"][: -record.facts["heads"] or None]
    heads = record.axes["component"][len(wholes) :]
    found, random = (_apart(record, vector) for vector in ("found", "random"))
    said = [
        _of_sums(record, wholes),
        _of_kinds(found, wholes),
        *([_of_heads(found, random, heads)] if heads else []),
        "This is what parts write at the last token, all of it in one sum. It is no proof that the model needs any "
        "one of them, nor does it count what a part moves at earlier tokens: for that, parts are ablated one by one "
        "further down.",
    ]
    figures = [_over_layers(record, kind) for kind in KINDS if any(_kind(label) == kind for label in wholes)]
    for listed, count, what in ((wholes, PARTS, "Parts"), (heads, HEADS, "Heads")):
        if listed:
            most = sorted(listed, key=lambda label: -abs(found[label][0]))[:count]
            rows = [(label, dict(zip(APART, (found[label], random[label]), strict=True))) for label in most]
            figures.append(bars(rows, f"{what} that differ most", "difference of means, 95 % interval", colours=APART))
    keys = [svg.key([(svg.dot(c, svg.SHAPES[c]), f"{name} prompts, ± 1 sd") for name, c in CLASSES.items()])]
    keys.append(bars_key([*APART], colours=APART))
    title = "Which parts write the direction"
    return {"title": title, "said": said, "figures": figures, "key": "".join(keys), "table": None}


def _apart(record: Measured, vector: str) -> dict[str, Difference]:
    """Return of every component how much more it writes on harmful prompts, with half its interval's width."""
    (a, s), (b, t) = (record.at(name, vector) for name in CLASSES)
    n, m = (record.n[name] for name in CLASSES)
    return {
        label: (a[i] - b[i], Z95 * sqrt(s[i] ** 2 / n + t[i] ** 2 / m))
        for i, label in enumerate(record.axes["component"])
    }


def _of_sums(record: Measured, wholes: Sequence[str]) -> str:
    sums = {
        (name, vector): sum(record.at(name, vector)[0][: len(wholes)])
        for name in CLASSES
        for vector in ("found", "random")
    }
    told = {place: signed(value, "+.1f") for place, value in sums.items()}
    return (
        f"Behind the last block, the last token's component along the direction is {told['harmful', 'found']} on "
        f"{record.n['harmful']} harmful prompts and {told['harmless', 'found']} on {record.n['harmless']} harmless "
        f"ones, the sum of what {len(wholes)} parts wrote. Along a random direction it is {told['harmful', 'random']} "
        f"and {told['harmless', 'random']}."
    )


def _of_kinds(found: dict[str, Difference], wholes: Sequence[str]) -> str:
    whole = sum(found[label][0] for label in wholes)
    kinds = dict.fromkeys(map(_kind, wholes))
    shares = [f"{percent(_sum(found, wholes, kind) / whole)} by {_called(kind)}" for kind in kinds]
    side = -1 if whole < 0 else 1  # harmful prompts may lie on the other side
    ranked = sorted(wholes, key=lambda label: -side * found[label][0])
    few = next((k for k in range(1, len(ranked)) if _of(found, ranked[:k]) / whole >= HALF), len(ranked))
    names = ", ".join(f"{label} ({signed(found[label][0], '+.1f')})" for label in ranked[:few])
    return (
        f"The difference between the classes, {signed(whole, '+.1f')}, is written {', '.join(shares)}. "
        f"{'One part writes' if few == 1 else f'{few} parts together write'} half of it: {names}."
    )


def _of_heads(found: dict[str, Difference], random: dict[str, Difference], heads: Sequence[str]) -> str:
    top = max(heads, key=lambda label: found[label][0])
    return (
        f"Of {len(heads)} heads, {top} writes most more on harmful prompts: {_told(found[top])}, and "
        f"{_told(random[top])} along a random direction. All heads together write "
        f"{signed(_of(found, heads), '+.1f')} more."
    )


def _over_layers(record: Measured, kind: str) -> str:
    """Draw what one kind of part writes at every layer, in the scale of both kinds."""
    labels = record.axes["component"]
    places = {
        each: [(i, int(label.split()[1])) for i, label in enumerate(labels) if _kind(label) == each] for each in KINDS
    }
    curves = {(name, vector): record.at(name, vector) for name in CLASSES for vector in ("found", "random")}
    every = [
        mean[i] + side * sd[i]
        for mean, sd in curves.values()
        for side in (-1, 1)
        for each in KINDS
        for i, _ in places[each]
    ]
    last = max(layer for each in KINDS for _, layer in places[each])
    axes = Axes((0, max(last, 1)), svg.padded(every), width=360, height=250, right=22)
    marks = [axes.scales(svg.whole_ticks(last), svg.ticks(*axes.y), x_name="layer"), axes.horizontal(0, "limit", "0")]
    for name, colour in CLASSES.items():
        mean, sd = curves[name, "found"]
        points = [(layer, mean[i], sd[i]) for i, layer in places[kind]]
        marks += [axes.band(points, colour), axes.line([(x, y) for x, y, _ in points], colour)]
        for x, y, spread in points:
            told = f"{name}, {kind} {x}: {number(y)} ± {number(spread)} (n = {record.n[name]})"
            marks.append(axes.mark((x, y), told, colour, shape=svg.SHAPES[colour]))
        marks.append(axes.line([(layer, curves[name, "random"][0][i]) for i, layer in places[kind]], svg.GREY))
    title = {"attention": "What attention writes", "MLP": "What MLPs write"}[kind]
    return axes.picture(title, "along the direction, last token; grey: a random one", marks)


def _kind(label: str) -> str:
    return label.split()[0]


def _called(kind: str) -> str:
    return {"MLP": "MLPs", "embedding": "the embedding"}.get(kind, kind)


def _of(found: dict[str, Difference], labels: Sequence[str]) -> float:
    return sum(found[label][0] for label in labels)


def _sum(found: dict[str, Difference], wholes: Sequence[str], kind: str) -> float:
    return _of(found, [label for label in wholes if _kind(label) == kind])


def _told(difference: Difference) -> str:
    return f"{signed(difference[0], '+.2f')} ± {difference[1]:.2f}"
