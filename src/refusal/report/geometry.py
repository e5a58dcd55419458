"""Where prompts lie along the direction, drawn and said: by layer and position, as histograms, among components."""

from collections.abc import Mapping, Sequence
from math import hypot, sqrt
from typing import Any

from refusal import svg
from refusal.formats import number, percent, position_label, signed, spread_text
from refusal.labels import CLASSES, Row
from refusal.report.drawing import Curve, layered, of_classes
from refusal.report.measured import Measured
from refusal.report.section import Section
from refusal.svg import Axes

GREY_LINE = svg.stroke("line", svg.GREY)
CLOSE = 0.5  # of squared cosine: more than half of the direction


def projections(record: Measured) -> Section:
    """Say how far the classes lie apart along the direction, and draw it at every position and layer."""
    facts, counts = record.facts, record.n
    chosen = str(facts["position"]), str(facts["layer"])
    told = {name: spread_text(*_at(record, name, "found", *chosen)) for name in CLASSES}
    apart = {vector: _apart(record, vector, *chosen) for vector in record.axes["vector"]}
    shared = {vector: percent(_shared(bins, counts)) for vector, bins in facts["histogram"].items()}
    every = [(p, layer) for p in record.axes["position"] for layer in record.axes["layer"]]
    widest = max(every, key=lambda place: abs(_apart(record, "found", *place)))
    said = [
        f"At layer {chosen[1]}, position {_label(chosen[0], facts)}, where the direction was read, the component along "
        f"it is {told['harmful']} on {counts['harmful']} harmful prompts and {told['harmless']} on "
        f"{counts['harmless']} harmless ones, none of which found it (mean ± standard deviation). The means lie "
        f"{abs(apart['found']):.1f} standard deviations apart, and the histograms share {shared['found']}.",
        f"Along a random direction they lie {abs(apart['random']):.1f} standard deviations apart and share "
        f"{shared['random']}"
        + (
            ": so far apart in the stream, the classes differ along most directions."
            if abs(apart["random"]) > 1
            else "."
        ),
    ]
    if widest != chosen:
        said.append(
            f"The classes lie furthest apart along this direction at layer {widest[1]}, position "
            f"{_label(widest[0], facts)} ({abs(_apart(record, 'found', *widest)):.1f} standard deviations), which "
            "is not where it was chosen: the choice is by effect, not by how well prompts can be told apart."
        )
    panels = [_over_layers(record, position) for position in record.axes["position"]]
    bars = [
        _histogram(facts["histogram"]["found"], counts, "The direction, at its own place"),
        _histogram(facts["histogram"]["random"], counts, "A random direction, at the same place"),
    ]
    key = svg.key([*of_classes(), (GREY_LINE, "both along a random direction")])
    return Section(
        "Where prompts lie along the direction",
        said,
        figures=[*panels, *bars],
        key=key,
    )


def pca(record: Measured) -> Section:
    """Say what the first principal components hold of the stream and of the direction, and draw both."""
    facts, n = record.facts, sum(record.n.values())
    first, cosine = facts["explained"][0], {vector: row[0] for vector, row in facts["cosine"].items()}
    of_all, within = facts["variance"]["all"], facts["variance"]["within"]
    held = sum(x * x for x in facts["cosine"]["found"])
    near = cosine["found"] ** 2 > CLOSE
    said = [
        f"At layer {facts['layer']}, position {_label(facts['position'], facts)}, the first principal component of all "
        f"{n} prompts holds {percent(first)} of their variance, and its cosine with the direction is "
        f"{signed(cosine['found'], '.3f')}; with a random direction it is {signed(cosine['random'], '.3f')} (by chance "
        f"0 ± {1 / sqrt(facts['d_model']):.3f}). "
        + (
            "What these prompts differ in most is mostly what the direction says."
            if near
            else "What these prompts differ in most is mostly something else than the direction."
        ),
        f"Along the direction lies {percent(of_all['found'])} of the variance of all prompts and "
        f"{percent(within['found'])} of the variance inside the two classes; along a random direction "
        f"{percent(of_all['random'])} and {percent(within['random'])}. The first "
        f"{len(facts['explained'])} components together hold {percent(held)} of the direction.",
        "That a component parts the classes does not show that the model refuses by it: variance is no effect.",
    ]
    key = svg.key(
        [
            *of_classes(),
            (
                svg.stroke("limit"),
                "the direction, from the mean of harmless prompts, in its own length",
            ),
            (GREY_LINE, "a random direction, as long"),
            (svg.dot(2, svg.SHAPES[1]), "share of the variance"),
            (svg.dot(1, svg.SHAPES[3]), "share of the direction"),
            (svg.dot(svg.GREY), "share of a random direction"),
        ]
    )
    return Section("What prompts differ in most", said, figures=[_scatter(record), _shares(facts)], key=key)


def _label(position: int | str, facts: Row) -> str:
    return position_label(int(position), facts["tokens"])


def _at(record: Measured, name: str, vector: str, position: str, layer: str) -> tuple[float, float]:
    """Return mean and standard deviation at one place."""
    mean, sd = record.at(name, vector, position)
    at = record.axes["layer"].index(layer)
    return float(mean[at]), float(sd[at])


def _apart(record: Measured, vector: str, position: str, layer: str) -> float:
    """Return Cohen's d: the difference of the means, in standard deviations inside a class."""
    (a, s), (b, t) = (_at(record, name, vector, position, layer) for name in CLASSES)
    spread = sqrt((s * s + t * t) / 2)
    return (a - b) / spread if spread > 1e-6 * hypot(a, b) else 0.0  # the same token: nothing but rounding


def _shared(bins: Row, counts: Mapping[str, int]) -> float:
    """Return the share of both histograms that lies under both."""
    pairs = zip(bins["harmful"], bins["harmless"], strict=True)
    return sum(min(a / counts["harmful"], b / counts["harmless"]) for a, b in pairs)


def _over_layers(record: Measured, position: str) -> str:
    """Draw one position over layers, in the scale of all."""
    curves = [
        Curve(name, *record.at(name, "found", position), record.n[name], colour, svg.SHAPES[colour])
        for name, colour in CLASSES.items()
    ]
    chosen = int(position) == record.facts["position"]
    return layered(
        curves,
        record.axes["layer"],
        f"Position {_label(position, record.facts)}" + (", chosen" if chosen else ""),
        "component along it, mean ± 1 sd over prompts",
        y=svg.padded(record.edges),
        random=[record.at(name, "random", position)[0] for name in CLASSES],
        chosen=record.layer if chosen else None,
        size=(340, 230),
    )


def _histogram(bins: Row, counts: Mapping[str, int], title: str) -> str:
    """Draw the share of either class's prompts in every bin, one over the other."""
    edges: Sequence[float] = bins["edges"]
    shares = {name: [k / counts[name] for k in bins[name]] for name in CLASSES}
    highest = 1.06 * max(share for row in shares.values() for share in row)
    axes = Axes((edges[0], edges[-1]), (0, highest), width=340, height=230, right=22)
    marks = [axes.scales(svg.ticks(*axes.x), svg.ticks(*axes.y), x_name="component along it", share=True)]
    for name, colour in CLASSES.items():
        for share, k, start, end in zip(shares[name], bins[name], edges, edges[1:], strict=False):
            told = f"{name}, {number(start)} to {number(end)}: {k} of {counts[name]}"
            marks += [axes.cell((start, 0), (end, share), told, svg.fill(colour, 0.65))] if k else []
    n = ", ".join(f"{counts[name]} {name}" for name in CLASSES)
    return axes.picture(title, f"share of prompts; n = {n}", marks)


def _scatter(record: Measured) -> str:
    """Draw every prompt on the first two components, both in the same scale, and where the direction leads."""
    facts = record.facts
    points: Mapping[str, Sequence[Sequence[float]]] = facts["points"]
    start: Any = tuple(record.at("harmless")[0][:2])
    arrows = {vector: [facts["norm"] * x for x in row[:2]] for vector, row in facts["cosine"].items()}
    ends = {vector: (start[0] + x, start[1] + y) for vector, (x, y) in arrows.items()}
    every = [*(tuple(point) for row in points.values() for point in row), *ends.values()]
    x, y = (svg.padded(value[i] for value in every) for i in (0, 1))
    frame = Axes(x, y, width=340, height=260, right=22)
    inner = (frame.width - frame.left - frame.right, frame.height - frame.top - frame.bottom)
    unit = max((x[1] - x[0]) / inner[0], (y[1] - y[0]) / inner[1])  # of the components, a point
    x, y = (
        (sum(ends) / 2 - unit * points / 2, sum(ends) / 2 + unit * points / 2)
        for ends, points in zip((x, y), inner, strict=True)
    )
    axes = Axes(x, y, width=frame.width, height=frame.height, right=frame.right)
    share = [percent(value) for value in facts["explained"][:2]]
    marks = [axes.scales(svg.ticks(*x), svg.ticks(*y), x_name=f"first component ({share[0]} of variance)")]
    for name, colour in CLASSES.items():
        for i, point in enumerate(points[name]):
            told = f"{name}, prompt {i + 1}: {number(point[0])}, {number(point[1])}"
            marks.append(axes.mark((point[0], point[1]), told, colour, shape=svg.SHAPES[colour]))
    (x1, y1), (x2, y2) = axes.at(*start), axes.at(*ends["random"])
    marks.append(f'<path class="line" stroke="var(--c7)" d="M{x1} {y1}L{x2} {y2}"/>')
    marks += [axes.segment(start, ends["found"], "limit"), axes.ring(ends["found"])]
    return axes.picture("Prompts on the first two components", f"upwards the second ({share[1]}), same scale", marks)


def _shares(facts: Row) -> str:
    """Draw of every component its share of the variance, and how much of the direction and of a random one it holds."""
    held = {vector: [x * x for x in row] for vector, row in facts["cosine"].items()}
    count = len(facts["explained"])
    axes = Axes((0.4, count + 0.6), (0, 1), width=340, height=260, right=22)
    marks = [axes.scales(range(1, count + 1), svg.SHARES, x_name="principal component", share=True)]
    for i, share in enumerate(facts["explained"], 1):
        told = f"component {i}: {percent(share)} of the variance"
        marks.append(axes.cell((i - 0.32, 0), (i + 0.32, share), told, svg.fill(2, 0.65)))
    for vector, colour, shape in (("random", svg.GREY, svg.CIRCLE), ("found", 1, svg.SHAPES[3])):
        for i, share in enumerate(held[vector], 1):
            name = "the direction" if vector == "found" else "a random direction"
            marks.append(axes.mark((i, share), f"component {i}: {percent(share)} of {name}", colour, shape=shape))
    return axes.picture("What the components hold", "of the variance, and squared cosines with either direction", marks)
