"""Which parts of the network write the direction, drawn and said: by layer for both classes, and where they differ."""

from collections.abc import Sequence
from math import sqrt

from refusal import svg
from refusal.formats import percent, signed
from refusal.labels import CLASSES
from refusal.report.drawing import Bar, Curve, bars, bars_key, layered, of_classes, spread
from refusal.report.measured import Measured
from refusal.report.section import Section
from refusal.statistics import Z95

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
            rows = [(label, _both(found[label], random[label])) for label in most]
            figures.append(bars(rows, f"{what} that differ most", "difference of means, 95 % interval", colours=APART))
    keys = [svg.key(of_classes("prompts, ± 1 sd"))]
    keys.append(bars_key(APART))
    return Section("Which parts write the direction", said, figures=figures, key="".join(keys))


def _apart(record: Measured, vector: str) -> dict[str, Difference]:
    """Return of every component how much more it writes on harmful prompts, with half its interval's width."""
    (a, s), (b, t) = (record.at(name, vector) for name in CLASSES)
    n, m = (record.n[name] for name in CLASSES)
    return {
        label: (a[i] - b[i], Z95 * sqrt(s[i] ** 2 / n + t[i] ** 2 / m))
        for i, label in enumerate(record.axes["component"])
    }


def _both(found: Difference, random: Difference) -> dict[str, Bar]:
    return {name: spread(*difference) for name, difference in zip(APART, (found, random), strict=True)}


def _of_sums(record: Measured, wholes: Sequence[str]) -> str:
    sums = {
        (name, vector): sum(record.at(name, vector)[0][: len(wholes)])
        for name in CLASSES
        for vector in ("found", "random")
    }
    told = {place: signed(value, "+.1f") for place, value in sums.items()}
    return (
        f"After the last block, the last token's component along the direction is {told['harmful', 'found']} on "
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
    places = {each: [i for i, label in enumerate(record.axes["component"]) if _kind(label) == each] for each in KINDS}
    layers = {each: [record.axes["component"][i].split()[1] for i in at] for each, at in places.items()}

    def read(name: str, vector: str, each: str) -> tuple[list[float], list[float]]:
        mean, sd = record.at(name, vector)
        return [mean[i] for i in places[each]], [sd[i] for i in places[each]]

    scale = [
        mean + side * sd
        for name in CLASSES
        for vector in ("found", "random")
        for each in KINDS
        for mean, sd in zip(*read(name, vector, each), strict=True)
        for side in (-1, 1)
    ]
    curves = [
        Curve(name, *read(name, "found", kind), record.n[name], colour, svg.SHAPES[colour])
        for name, colour in CLASSES.items()
    ]
    return layered(
        curves,
        layers[kind],
        {"attention": "What attention writes", "MLP": "What MLPs write"}[kind],
        "along the direction, last token; grey: a random one",
        y=svg.padded(scale),
        what=kind,
        end=max(int(layer) for listed in layers.values() for layer in listed),
        random=[read(name, "random", kind)[0] for name in CLASSES],
        zero=True,
        size=(360, 250),
    )


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
