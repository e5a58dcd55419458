"""How far candidates agree with each other, and with themselves on other prompts: drawn and said."""

from collections.abc import Sequence
from math import ceil, sqrt
from statistics import median

from refusal import svg
from refusal.formats import minus, position_label, shortened, signed
from refusal.labels import Row
from refusal.report.measured import Measured
from refusal.report.section import Section, Table
from refusal.svg import Axes

CHOSEN, HALVES = (3, svg.SHAPES[3]), (2, svg.CIRCLE)  # colour and shape
MOST = 48  # rows of a heat map whose cells can still be pointed at
ABOVE, BELOW = 2, 3  # colours of cosines on either side of 0
MARGIN, LONGEST = 104, 16  # points and characters, for the positions' labels
Place = tuple[int, int]  # indices of position and layer


def agreement(record: Measured) -> Section:
    """Say how well other prompts find the same candidate, and how like the chosen one the others are."""
    facts, n = record.facts, record.n
    at = record.place
    told = {name: "{} ± {}".format(*(signed(x, ".3f") for x in _at(record, name, at))) for name in n}
    sizes = " and ".join(f"{count // 2} {name}" for name, count in facts["prompts"].items())
    floor, spread = _at(record, "halves", at)
    by_chance, expected = _at(record, "shuffled", at)[1], 1 / sqrt(facts["d_model"])
    others = {place: cosine for place, cosine in _cosines(facts).items() if place != at}
    like = sum(cosine >= floor - 2 * spread for cosine in others.values())
    best = max(others, key=lambda place: others[place])
    said = [
        f"Found from two halves of its prompts ({sizes} each), the direction of {_name(record, at)} has a cosine of "
        f"{told['halves']} with itself (mean ± standard deviation over {n['halves']} splits). Directions that agree as "
        "well as this cannot be told apart by so many prompts.",
        f"With harmful and harmless mixed up inside each half the cosine is {told['shuffled']}; with random directions "
        f"it is {told['random']} (by chance 0 ± {expected:.3f}). "
        + (
            "So two directions that have nothing to do with the classes agree much more by chance than random ones do: "
            "the stream varies in few ways, and the mixed-up classes are the control to compare a cosine with."
            if by_chance > 2 * expected
            else "So directions that have nothing to do with the classes agree about as little as random ones do."
        ),
        f"Of {len(others)} other candidates that of {_name(record, best)} is most like it (cosine "
        f"{signed(others[best], '.3f')}); {like} agree with it as well as its own halves do with each other, less two "
        "of their standard deviations. That candidates are alike does not show that they do the same.",
    ]
    keys = [
        (svg.dot(*CHOSEN), "cosine of the candidate with the chosen direction"),
        (svg.dot(*HALVES), "of the candidate from two halves of its prompts, ± 1 sd over splits"),
        (svg.swatch(f'class="band" {svg.fill(svg.GREY)}'), "classes mixed up, ± 1 sd"),
        (svg.stroke("base"), "random directions, ± 2/√d"),
    ]
    figures = [_over_layers(record, i) for i in range(len(record.axes["position"]))]
    return Section("How well candidates agree", said, figures=figures, key=svg.key(keys), table=_table(record))


def candidate_cosines(record: Measured) -> Section:
    """Say how alike candidates are inside a position and between positions, and draw all cosines."""
    random, cosines = record.facts["random"], record.mean[0]
    positions, layers = (range(len(record.axes[axis])) for axis in ("position", "layer"))
    inside = [cosines[p][i][p][j] for p in positions for i in layers for j in range(i)]
    between = {(p, q): [cosines[p][i][q][i] for i in layers] for p in positions for q in range(p)}
    told = [_spread(values) for values in (inside, [x for row in between.values() for x in row])]
    said = [
        f"Inside a position, candidates of two layers have cosines of {told[0]}; at one layer, candidates of two "
        f"positions have cosines of {told[1]}. Among as many random directions they are {signed(random['mean'], '.3f')}"
        f" ± {random['sd']:.3f} ({signed(random['min'], '.2f')} to {signed(random['max'], '.2f')})."
    ]
    layer = record.facts["layer"]
    pairs = sorted((row[layer], pair) for pair, row in between.items() if row[layer] is not None)
    if pairs:
        (low, least), (high, most) = pairs[0], pairs[-1]
        said.append(
            f"At layer {layer} the positions most alike are {_pair(record, most)} (cosine {signed(high, '.3f')}), and "
            f"least alike are {_pair(record, least)} ({signed(low, '.3f')})."
        )
    ends = (ABOVE, "cosine 1; paler towards 0"), (BELOW, "cosine −1")
    key = svg.key([(svg.swatch(svg.fill(colour)), told) for colour, told in ends])
    return Section("Cosines between candidates", said, figures=[_heat_map(record)], key=key)


def _at(record: Measured, name: str, place: Place) -> tuple[float, float]:
    mean, sd = (rows[place[0]][place[1]] for rows in record.at(name))
    return mean, sd


def _cosines(facts: Row) -> dict[Place, float]:
    """Return the cosine of every candidate there is with the chosen direction."""
    rows = enumerate(facts["chosen"])
    return {(i, j): x for i, row in rows for j, x in enumerate(row) if x is not None}


def _label(record: Measured, index: int) -> str:
    return position_label(int(record.axes["position"][index]), record.facts["tokens"])


def _name(record: Measured, place: Place) -> str:
    return f"layer {place[1]}, position {_label(record, place[0])}"


def _pair(record: Measured, pair: tuple[int, int]) -> str:
    return " and ".join(_label(record, i) for i in sorted(pair))


def _spread(cosines: Sequence[float | None]) -> str:
    """Return the extent and the median of the cosines there are."""
    known = [x for x in cosines if x is not None]
    if not known:
        return "none"
    low, middle, high = (signed(x, ".3f") for x in (min(known), median(known), max(known)))
    return f"{low} to {high} (median {middle})"


def _table(record: Measured) -> Table:
    """Return by position how well the halves agree, and how like the chosen direction its candidates are."""
    rows, layer = [], record.facts["layer"]
    for i in range(len(record.axes["position"])):
        mean, sd = (x[i][layer] for x in record.at("halves"))
        halves = "–" if mean is None else f"{signed(mean, '.3f')} ± {sd:.3f}"
        rows.append([_label(record, i), halves, _spread(record.facts["chosen"][i])])
    return Table(["position", f"two halves, layer {layer}", "with the chosen direction, all layers"], rows)


def _over_layers(record: Measured, index: int) -> str:
    """Draw one position over layers."""
    facts, layers = record.facts, [*map(int, record.axes["layer"])]
    lines = {name: [row[index] for row in record.at(name)] for name in ("halves", "shuffled")}
    known = {
        name: [(x, m, s) for x, m, s in zip(layers, *rows, strict=True) if m is not None]
        for name, rows in lines.items()
    }
    chosen = [(x, cosine) for x, cosine in zip(layers, facts["chosen"][index], strict=True) if cosine is not None]
    axes = Axes((0, layers[-1]), (-1.05, 1.05), width=340, height=240, right=22)
    marks = [axes.scales(svg.whole_ticks(layers[-1]), (-1, -0.5, 0, 0.5, 1), x_name="layer")]
    if known["halves"]:
        marks += [axes.band(known["shuffled"], svg.GREY), axes.band(known["halves"], HALVES[0])]
    for end in (-2, 2):
        marks.append(axes.horizontal(end / sqrt(facts["d_model"]), "base", "random directions"))
    marks += [axes.line([(x, m) for x, m, _ in known["halves"]], HALVES[0]), axes.line(chosen, CHOSEN[0])]
    for x, mean, sd in known["halves"]:
        told = f"layer {x}, two halves: {signed(mean, '.3f')} ± {sd:.3f}"
        marks.append(axes.mark((x, mean), told, HALVES[0], shape=HALVES[1]))
    for x, cosine in chosen:
        told = f"layer {x}, with the chosen direction: {signed(cosine, '.3f')}"
        marks.append(axes.mark((x, cosine), told, CHOSEN[0], shape=CHOSEN[1]))
        marks += [axes.ring((x, cosine))] if (index, x) == record.place else []
    n = record.n["halves"]
    return axes.picture(f"Position {_label(record, index)}", f"cosines; n = {n} splits; ring: the chosen one", marks)


def _heat_map(record: Measured) -> str:
    """Draw the cosines of all pairs of candidates, a cell a pair, positions one behind the other."""
    cosines, tokens = record.mean[0], record.axes["position"]
    count, layer = len(record.axes["layer"]), record.facts["layer"]
    step = ceil(count * len(tokens) / MOST)
    shown = [(p, i) for p in range(len(tokens)) for i in range(layer % step, count, step)]
    size, width = len(shown), 420
    axes = Axes((0, size), (0, size), width=width, height=width + 24, left=MARGIN, right=14, bottom=32)
    marks = []
    for row, (p, i) in enumerate(shown):
        for column, (q, j) in enumerate(shown[: row + 1]):
            if (cosine := cosines[p][i][q][j]) is None:
                continue
            told = f"{_name(record, (p, i))} with {_name(record, (q, j))}: {signed(cosine, '.3f')}"
            paint = svg.fill(ABOVE if cosine > 0 else BELOW, min(abs(cosine), 1.0))
            marks.append(axes.cell((column, size - row), (column + 1, size - row - 1), told, paint))
    block = size // len(tokens)
    for p in range(len(tokens)):
        start, end = p * block, (p + 1) * block
        marks.append(axes.segment((0, size - end), (end, size - end), "grid"))
        marks.append(axes.segment((start, 0), (start, size - start), "grid"))
        label = shortened(_label(record, p), LONGEST)
        marks.append(axes.text((0, size - start - block / 2), label, dx=-6, dy=4, anchor="end"))
        marks.append(axes.text((start + block / 2, 0), minus(tokens[p]), dy=16, anchor="middle"))
    steps = f" in steps of {step}" if step > 1 else ""
    note = f"in each position layers {shown[0][1]} to {shown[-1][1]}{steps}, downwards and to the right"
    return axes.picture("Every candidate with every other", note, marks)
