"""What the model is about to say, as the page shows it: first tokens (paper Figure 9), the metric (Figure 10)."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

from refusal import svg
from refusal.conditions import MAIN
from refusal.formats import number, percent, rate_text, shortened, signed, visible
from refusal.labels import CLASSES, label_of, name_of
from refusal.report.drawing import bars, bars_key, of_classes, spread
from refusal.report.measured import Measured
from refusal.report.section import Section, Table
from refusal.report.words import rate_cell
from refusal.statistics.rates import Z95
from refusal.svg import Axes

Cell = tuple[str, str]  # intervention, vector
MOST, LEAST = 10, 0.005  # tokens shown of a class, and the probability below which none is
LONGEST = 12  # characters of a token at its bars


def first_tokens(record: Measured) -> Section:
    """Return what is said of the first tokens of answers, and their figures."""
    refusal = record.facts["refusal tokens"]
    named = " or ".join(f"“{visible(text)}”" for text in refusal["texts"])
    said = [_begins(record, name, n) for name, n in record.n.items()]
    for name, done in MAIN.items():
        plain, moved, control = (_mass(record, name, *cell) for cell in _cells(done))
        verb = "ablated" if done == "ablation" else "added"
        said.append(
            f"The refusal tokens ({named}) come first on {name} prompts with probability {percent(plain)}, with the "
            f"direction {verb} {percent(moved)}, and with a random one {verb} {percent(control)}."
        )
    said.append("A first token tells how an answer begins, not whether it is right.")
    return Section(
        "The first token of an answer",
        said,
        figures=[_tokens(record, name, done) for name, done in MAIN.items()],
        key=bars_key(COLOURS),
    )


def metrics(record: Measured) -> Section:
    """Return what is said of the refusal metric of prompts, its histograms, and the shares on each side of 0."""
    sides = record.facts["sides"]
    cells = [("none", "found"), *((kind, vector) for kind in MAIN.values() for vector in ("found", "random"))]
    rows = []
    for name in MAIN:
        for kind, vector in cells:
            found = sides[name][kind][vector]
            above, spread = rate_cell(found["above"], "above"), found["metric"]
            ends = f"{signed(spread['mean'], '.2f')} ± {spread['sd']:.2f}"
            rows.append(
                [name, name_of(_condition(kind, vector)), above["count"], above["rate"], above["interval"], ends]
            )
    plain = {name: sides[name]["none"]["found"] for name in MAIN}
    said = [
        f"Above the threshold 0, where prompts count as refused, lie {rate_text(plain['harmful']['above'], 'above')} "
        f"of the harmful prompts; below it lie {rate_text(plain['harmless']['below'], 'below')} of the harmless ones. "
        "No prompt was left out here."
    ]
    for name, kind in MAIN.items():
        moved, control = (sides[name][kind][vector]["above"] for vector in ("found", "random"))
        verb = "ablated" if kind == "ablation" else "added"
        said.append(
            f"With the direction {verb}, {rate_text(moved, 'above')} of the {name} prompts lie above 0; with a random "
            f"one {verb}, {rate_text(control, 'above')}."
        )
    return Section(
        "The refusal metric of every prompt",
        said,
        figures=[_histogram(record, *cell) for cell in cells],
        key=svg.key(of_classes(shape=svg.SHAPES[1])),
        table=Table(
            ["Prompts", "Intervention", "Above 0", "Share", "95 % interval", "Metric, mean ± sd"],
            rows,
        ),
    )


def _condition(kind: str, vector: str) -> str:
    """Return what a run calls an intervention."""
    return kind if vector == "found" or kind == "none" else f"random_{kind}"


COLOURS = {
    name_of(name): label_of(name).colour
    for name in ("none", "ablation", "addition", "random_ablation", "random_addition")
}


def _cells(kind: str) -> list[Cell]:
    return [("none", "found"), (kind, "found"), (kind, "random")]


def _begins(record: Measured, name: str, n: int) -> str:
    mean, _ = record.at(name, "none", "found")
    listed = sorted(zip(mean, record.facts["texts"], strict=True), key=lambda one: -one[0])[:3]
    words = ", ".join(f"“{visible(text)}” ({percent(share)})" for share, text in listed if share >= LEAST)
    return f"Answers to {n} {name} prompts begin most likely with {words}."


def _mass(record: Measured, name: str, kind: str, vector: str) -> float:
    """Return the mean probability that a refusal token comes first."""
    mean, _ = record.at(name, kind, vector)
    ids = {str(i) for i in record.facts["refusal tokens"]["ids"]}
    return sum(share for token, share in zip(record.axes["token"], mean, strict=True) if token in ids)


def _tokens(record: Measured, name: str, kind: str) -> str:
    cells = _cells(kind)
    n = record.n[name]
    found = {name_of(_condition(*cell)): record.at(name, *cell) for cell in cells}
    shown = _shown([mean for mean, _ in found.values()])
    rows = [
        (
            shortened(visible(record.facts["texts"][i]), LONGEST),
            {series: spread(mean[i], Z95 * sd[i] / sqrt(n)) for series, (mean, sd) in found.items()},
        )
        for i in shown
    ]
    note = f"probability, mean over {n} prompts and its 95 % interval"
    return bars(rows, f"First token, {name} prompts", note, colours=COLOURS)


def _shown(means: Sequence[Sequence[float]]) -> list[int]:
    """Return the tokens that are likely in some series, those of the first series first."""
    most = [max(each) for each in zip(*means, strict=True)]
    likely = sorted((i for i, share in enumerate(most) if share >= LEAST), key=lambda i: -most[i])[:MOST]
    return sorted(likely or [0], key=lambda i: -means[0][i])


def _histogram(record: Measured, kind: str, vector: str) -> str:
    """Draw both classes' shares of prompts over the metric; all histograms of a record have the same scales."""
    ends, width = [float(label) for label in record.axes["bin"]], record.facts["width"]
    every = [shares for by in record.mean for vectors in by for shares in vectors]
    used = [end for i, end in enumerate(ends) if any(shares[i] for shares in every)]
    low, high = min([*used, 0]) - width, max([*used, 0]) + 2 * width
    top = 1.08 * max(share for shares in every for share in shares)
    axes = Axes((low, high), (0, top), height=190, right=22)
    marks: list[Any] = [axes.scales(svg.ticks(low, high), svg.ticks(0, top), x_name="refusal metric", share=True)]
    marks.append(axes.vertical(record.facts["threshold"], "limit"))
    above = []
    for name, colour in CLASSES.items():
        shares, side = record.at(name, kind, vector)[0], record.facts["sides"][name][kind][vector]
        n, spread = side["above"]["n"], side["metric"]
        bins = [(x, x + width, y) for x, y in zip(ends, shares, strict=True) if low <= x < high]
        for start, end, share in bins:
            told = f"{name}, {number(start)} to {number(end)}: {percent(share)} (n = {n})"
            paint = f'class="band" {svg.fill(colour)}'
            marks += [axes.cell((start, 0), (end, share), told, paint)] if share else []
        outline = axes.path([point for start, end, y in bins for point in ((start, y), (end, y))])
        told = f"{name}: {number(spread['mean'])} ± {number(spread['sd'])} (n = {n})"
        marks.append(f'<path class="line" stroke="var(--c{colour})" d="{outline}"><title>{told}</title></path>')
        above.append(f"{side['above']['above']} of {n} {name}")
    label = name_of(_condition(kind, vector))
    return axes.picture(label, f"above 0: {', '.join(above)} prompts", marks)
