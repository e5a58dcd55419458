"""Where a direction works that was not found there, drawn and said: a matrix of refusal rates, and of cosines."""

from collections.abc import Callable, Mapping, Sequence

from refusal import svg
from refusal.formats import position_label, rate_text, signed
from refusal.labels import CLASSES, Row
from refusal.report.measured import Measured
from refusal.report.section import Section, Table
from refusal.report.words import listed
from refusal.svg import Axes

UNTOUCHED, RANDOM = "untouched", "random"
SHORT = {UNTOUCHED: "none"}  # at the head of a narrow column
CHANGES = {"ablated": "harmful", "added": "harmless"}  # whose answers they are
TITLES = {"ablated": "Refused, with the direction ablated", "added": "Refused, with the direction added"}
ABOVE, BELOW = 2, 3  # colours of cosines on either side of 0
DARKEST = 0.62  # so that the number in a cell can be read
CELL = 34  # points, a cell's height
Cell = tuple[str, str, str, float, int]  # text, smaller text below, what it tells when pointed at, opacity, colour


def section(record: Measured) -> Section:
    """Say which direction takes refusal away, and which causes it, where it was not found; and draw all of it."""
    facts = record.facts
    said = [
        *_borrowed(facts),
        *(_worked(record, change) for change in CHANGES),
        _control(facts["rates"]),
        *_undetermined(facts["rates"]),
        *_alike(facts),
        "Every direction is added at its own length (in the table): a short one that does nothing might do more if it "
        "were longer. And a refusal is counted only in the tokens that were generated.",
    ]
    figures = [*(_matrix(record, change) for change in CHANGES), _cosines(facts)]
    return Section("Where else the direction works", said, figures=figures, key=_key(), table=_table(facts))


def works(cell: Row, untouched: Row, change: str) -> bool:
    """Tell whether fewer (ablated) or more (added) are refused than untouched: the intervals do not meet.

    Not where most answers have no verdict: the few that were finished may be of one kind.
    """
    if cell["n"] <= cell.get("undetermined", 0):
        return False
    return cell["high"] < untouched["low"] if change == "ablated" else cell["low"] > untouched["high"]


def _borrowed(facts: Row) -> list[str]:
    """Say which directions the selection rule did not choose."""
    taken = {name: one["borrowed"] for name, one in facts["sources"].items() if one["borrowed"]}
    said = [f"{name} ({_first(reason)})" for name, reason in taken.items()]
    left = [f"{name} ({_first(reason)})" for name, reason in facts.get("without a direction", {}).items()]
    sentences = []
    if said:
        sentences.append(
            f"No direction was chosen by the rule for {listed(said)}: used there is the difference of means at the "
            "place of another direction."
        )
    if left:
        sentences.append(f"No direction was taken from {listed(left)}.")
    return sentences


def _where(rates: Mapping[str, Row], source: str, change: str) -> tuple[list[str], list[str]]:
    """Return on which targets a source was tried, and on which it works."""
    tried = {name: by[change] for name, by in rates.items() if source in by[change]}
    return [*tried], [name for name, by in tried.items() if works(by[source], by[UNTOUCHED], change)]


def _worked(record: Measured, change: str) -> str:
    """Say of every source where it works."""
    rates, said = record.facts["rates"], []
    for source in record.facts["sources"]:
        tried, done = _where(rates, source, change)
        said.append(f"that of {source} in {len(done)} of {len(tried)}{f' ({listed(done)})' if done else ''}")
    none = [name for name, by in rates.items() if change == "ablated" and not by[change][UNTOUCHED]["refused"]]
    rest = f" On {listed(none)} nothing is refused, so there is nothing to take away." if none else ""
    does = "takes refusals of harmful prompts away" if change == "ablated" else "makes harmless prompts refused"
    return (
        f"When it is {change}, a direction {does}, by 95 % intervals that do not meet (framed in the figure): "
        f"{'; '.join(said)}.{rest}"
    )


def _control(rates: Mapping[str, Row]) -> str:
    moved = [
        f"{name}, {change} ({rate_text(by[UNTOUCHED], 'refused')} to {rate_text(by[RANDOM], 'refused')})"
        for name, of in rates.items()
        for change, by in of.items()
        if RANDOM in by and any(works(by[RANDOM], by[UNTOUCHED], other) for other in CHANGES)
    ]
    return (
        f"A random direction, as long as the longest of these, changes the rate of {listed(moved)}."
        if moved
        else "A random direction, as long as the longest of these, changes no rate."
    )


def _undetermined(rates: Mapping[str, Row]) -> list[str]:
    """Say where many answers have no verdict: those that were still thinking when they were cut."""
    lost = [
        f"{cell['undetermined']} of {cell['undetermined'] + cell['n']} in {name} with {vector} {change}"
        for name, of in rates.items()
        for change, by in of.items()
        for vector, cell in by.items()
        if 10 * cell.get("undetermined", 0) > cell["n"]
    ]
    return [f"Answers that were still thinking when they were cut count in no rate: {listed(lost)}."] if lost else []


def _alike(facts: Row) -> list[str]:
    names, found = [*facts["sources"]], facts["cosines"]
    pairs = sorted(
        (cosine, f"{names[j]} and {name}")
        for i, name in enumerate(names)
        for j, cosine in enumerate(found["between"][i][:i])
        if cosine is not None
    )
    halves = sorted({signed(one["halves"]["mean"], ".2f") for one in found["itself"]})
    mixed = max(one["mixed up"]["sd"] for one in found["itself"])
    if not pairs:
        return []
    (low, least), (high, most) = pairs[0], pairs[-1]
    ends = f"{most} are most alike (cosine {signed(high, '.2f')})"
    ends += f", {least} least ({signed(low, '.2f')})" if len(pairs) > 1 else ""
    return [
        f"Of the directions {ends}. The two halves of one's own prompts agree by "
        f"{' to '.join(dict.fromkeys((halves[0], halves[-1])))} in the mean; with the classes mixed up, by about 0 ± "
        f"{mixed:.2f}."
    ]


def _matrix(record: Measured, change: str) -> str:
    """Draw refusal rates: targets down, directions across, controls first."""
    kind, colour = CHANGES[change], CLASSES[CHANGES[change]]
    vectors = sorted(record.axes["vector"], key=lambda vector: vector not in (UNTOUCHED, RANDOM))
    rates, impossible = record.facts["rates"], record.facts["impossible"]

    def cell(target: str, vector: str) -> tuple[Cell, bool]:
        by = rates[target][change]
        told = f"{target}, {vector}: "
        if vector not in by:
            return ("–", "", told + impossible[target].get(vector, "nothing to take away"), 0.0, colour), False
        one = by[vector]
        if not one["n"]:
            return ("?", "", told + "no thought was finished", 0.0, colour), False
        ends = f"{100 * one['low']:.0f}–{100 * one['high']:.0f}"
        text = f"{100 * one['rate']:.0f}"
        opacity = 0.04 + DARKEST * one["rate"]
        return (text, ends, told + rate_text(one, "refused"), opacity, colour), works(one, by[UNTOUCHED], change)

    counts = sorted(set(record.n.values()))
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    note = f"% of {n} {kind} prompts, 95 % interval; down: on whom, across: whose"
    return _grid([*rates], vectors, cell, TITLES[change], note)


def _cosines(facts: Row) -> str:
    names, found = [*facts["sources"]], facts["cosines"]

    def cell(one: str, other: str) -> tuple[Cell, bool]:
        i, j = names.index(one), names.index(other)
        cosine = found["itself"][i]["halves"]["mean"] if i == j else found["between"][i][j]
        told = f"{one}, {'two halves of its prompts' if i == j else other}: "
        if cosine is None:
            return ("–", "", told + "no common layer", 0.0, ABOVE), False
        text, colour = signed(cosine, ".2f"), ABOVE if cosine > 0 else BELOW
        return (text, "", told + text, DARKEST * min(abs(cosine), 1.0), colour), False

    return _grid(
        names,
        names,
        cell,
        "Cosines between the directions",
        "at the layer of the row's direction; with itself: two halves",
    )


def _grid(
    rows: Sequence[str],
    columns: Sequence[str],
    cell: Callable[[str, str], tuple[Cell, bool]],
    title: str,
    note: str,
) -> str:
    """Draw a cell for every row and column; a frame marks those that `cell` says."""
    axes = Axes((0, len(columns)), (0, len(rows)), height=CELL * len(rows) + 100, left=78, right=6)
    marks = []
    for i, row in enumerate(rows):
        up = len(rows) - i
        marks.append(axes.text((0, up - 0.5), row, dx=-6, dy=4, anchor="end"))
        for j, column in enumerate(columns):
            (text, small, told, opacity, colour), framed = cell(row, column)
            corners = (j + 0.03, up - 0.04), (j + 0.97, up - 0.96)
            marks += [axes.cell(*corners, told, svg.fill(colour, opacity)), *([axes.frame(*corners)] if framed else [])]
            marks.append(axes.inside((j + 0.5, up - 0.5), text, dy=0 if small else 4))
            marks += [axes.inside((j + 0.5, up - 0.5), small, dy=12, size=10)] if small else []
    for j, column in enumerate(columns):
        for line, word in enumerate(SHORT.get(column, column).split(" ", 1)):
            marks.append(axes.text((j + 0.5, 0), word, dy=15 + 12 * line, anchor="middle"))
    return axes.picture(title, note, marks)


def _key() -> str:
    return svg.key(
        [
            *((svg.swatch(svg.fill(colour, DARKEST)), f"{name} prompts refused") for name, colour in CLASSES.items()),
            (svg.swatch('class="ring" rx="2"'), "the direction works"),
        ]
    )


def _table(facts: Row) -> Table:
    """Return where every direction comes from."""
    head = ["Direction of", "Chosen by the rule", "Train prompts", "Position", "Layer", "Length", "Two halves"]
    rows = []
    for (name, one), own in zip(facts["sources"].items(), facts["cosines"]["itself"], strict=True):
        counts = " + ".join(f"{count} {kind}" for kind, count in one["prompts"].items())
        halves = f"{signed(own['halves']['mean'], '.2f')} ± {own['halves']['sd']:.2f}"
        place = position_label(one["position"], ()), str(one["layer"]), f"{one['length']:.1f}"
        rows.append([name, "no" if one["borrowed"] else "yes", counts, *place, halves])
    return Table(head, rows)


def _first(reason: str) -> str:
    """Return an error's first sentence, to stand in brackets."""
    sentence = reason.partition(". ")[0].partition(" (")[0].rstrip(".")
    return sentence[:1].lower() + sentence[1:]
