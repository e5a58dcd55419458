"""How well candidates tell prompts apart, against what they do to refusal: drawn and said."""

from typing import Any

from refusal import svg
from refusal.formats import number, percent, position_label, signed, whole_percent
from refusal.labels import label_of
from refusal.report.measured import Measured
from refusal.report.section import Section, Table
from refusal.svg import Axes

APART, WITHOUT = 0.95, 0.1  # the AUROC from which on classes are told apart; the effect under which there is hardly one
WORDS = {"ablated": "takes away", "added": "brings about"}
EFFECTS = (
    ("ablated", label_of("ablation").colour, svg.SHAPES[1]),
    ("added", label_of("addition").colour, svg.SHAPES[2]),
)
AREAS = (("own", 2, svg.SHAPES[0]), ("found", 4, svg.SHAPES[3]))
SCORED = [*AREAS, *EFFECTS]
NAMES = {
    "own": "AUROC along the layer's own candidate",
    "found": "AUROC along the one direction",
    "ablated": "refusal that ablating the layer's candidate takes away",
    "added": "refusal that adding it brings about",
}


def section(record: Measured) -> Section:
    """Say that telling prompts apart and causing refusal are not the same, and draw both of every candidate."""
    facts, n = record.facts, record.n
    at, layer = record.place
    area, (low, high) = _areas(record, "found")[at][layer], facts["interval"]["found"][at][layer]
    drawn = facts["random"]
    said = [
        f"At layer {layer}, position {_label(record, at)}, the component along the direction is the larger one in "
        f"{percent(area)} of all pairs of a harmful and a harmless prompt (AUROC {area:.3f} [{low:.3f}, {high:.3f}], "
        f"{n['harmful']} and {n['harmless']} held-out prompts). Of {drawn['draws']} random directions "
        f"{whole_percent(0.95)} have an AUROC between {drawn['low'][at][layer]:.3f} and "
        f"{drawn['high'][at][layer]:.3f}.",
        *_said_of_candidates(record),
    ]
    figures = [_every_candidate(record), *(_over_layers(record, i) for i in range(len(record.axes["position"])))]
    band = (
        svg.swatch('class="shade"'),
        f"{whole_percent(0.95)} of random directions (AUROC)",
    )
    lines = svg.key([*((svg.dot(colour, shape), NAMES[name]) for name, colour, shape in SCORED), band])
    marks = svg.key([(svg.dot(*_mark(i)), _label(record, i)) for i in range(len(record.axes["position"]))])
    return Section(
        "Telling prompts apart is not causing refusal", said, figures=figures, key=lines + marks, table=_table(record)
    )


def _said_of_candidates(record: Measured) -> list[str]:
    """Say what the candidates that tell prompts apart do, and how far one goes with the other."""
    facts, rows = record.facts, _candidates(record)
    good = [row for row in rows if row["own"] >= APART]
    said = []
    if good:
        weak = sum(row["ablated"] < WITHOUT for row in good)
        ends = {name: (min(row[name] for row in good), max(row[name] for row in good)) for name, _, _ in EFFECTS}
        spans = {name: f"{percent(low)} to {percent(high)}" for name, (low, high) in ends.items()}
        said.append(
            f"{len(good)} of {len(rows)} candidates tell held-out prompts apart with an AUROC of {APART} or more. "
            f"Ablating one of them takes away {spans['ablated']} of refusal, and adding one brings about "
            f"{spans['added']} ({whole_percent(1.0)} is the difference of the refusal metric between the two classes "
            f"on validation prompts, {facts['n_val']['harmful']} and {facts['n_val']['harmless']})."
        )
        said.append(
            f"{weak} of these take away less than {whole_percent(WITHOUT)}: prompts can be told apart there, but "
            "refusal is not decided by it. A probe that tells prompts apart need not find what the model acts on; only "
            "interventions tell."
            if weak
            else f"None of these takes away less than {whole_percent(WITHOUT)}: what tells prompts apart "
            "has an effect here."
        )
    told = {
        name: signed(row["rho"], "+.2f") for name, row in facts["rank_correlation"].items() if row["rho"] is not None
    }
    if told:
        listed = " and ".join(f"{value} with the effect of it being {name}" for name, value in told.items())
        said.append(
            f"Over all candidates the AUROC has a rank correlation of {listed}. Candidates of one model are "
            "not independent of each other, so this has no p-value."
        )
    return said


def _table(record: Measured) -> Table:
    """Return by position the least and the greatest value over its candidates."""
    rows = []
    for i in range(len(record.axes["position"])):
        own = [row for row in _candidates(record) if row["position"] == i]
        if own:
            areas = f"{min(row['own'] for row in own):.3f} to {max(row['own'] for row in own):.3f}"
            effects = [
                f"{percent(min(row[name] for row in own))} to {percent(max(row[name] for row in own))}"
                for name, _, _ in EFFECTS
            ]
            rows.append([_label(record, i), str(len(own)), areas, *effects])
    head = ["position", "candidates", "AUROC", "refusal taken away, ablated", "refusal brought about, added"]
    return Table(head, rows)


def _candidates(record: Measured) -> list[dict[str, Any]]:
    """Return every candidate that has scores, with its AUROC and effects."""
    effect, areas = record.facts["effect"], _areas(record, "own")
    return [
        {"position": i, "layer": j, "own": area, **{name: effect[name][i][j] for name in WORDS}}
        for i, line in enumerate(areas)
        for j, area in enumerate(line)
        if all(effect[name][i][j] is not None for name in WORDS)
    ]


def _areas(record: Measured, vector: str) -> list[list[float]]:
    return record.at("harmful", vector)[0]


def _label(record: Measured, index: int) -> str:
    return position_label(int(record.axes["position"][index]), record.facts["tokens"])


def _mark(index: int) -> tuple[int, str]:
    """Return colour and shape of a position in `_every_candidate`; the first colour is no other series'."""
    return (3 + index // len(svg.SHAPES)) % svg.COLOURS, svg.SHAPES[index % len(svg.SHAPES)]


def _every_candidate(record: Measured) -> str:
    """Draw of every candidate its AUROC and the effect of ablating it."""
    rows, facts = _candidates(record), record.facts
    x = svg.padded([*(row["own"] for row in rows), 1.0])
    y = svg.padded([*(row["ablated"] for row in rows), 0.0, 1.0])
    axes = Axes((x[0], min(x[1], 1.02)), y, width=340, height=240, right=22)
    marks = [axes.scales(svg.ticks(*axes.x), svg.ticks(*y), x_name="AUROC, held-out prompts", share=True)]
    for row in rows:
        point, place = (row["own"], row["ablated"]), (row["position"], row["layer"])
        low, high = facts["interval"]["own"][place[0]][place[1]]
        label = f"position {_label(record, row['position'])}, layer {row['layer']}"
        told = f"{label}: AUROC {row['own']:.3f} [{low:.3f}, {high:.3f}], {percent(row['ablated'])} of refusal"
        colour, shape = _mark(row["position"])
        marks.append(axes.mark(point, told, colour, shape=shape))
        marks += [axes.ring(point)] if place == record.place else []
    return axes.picture("Refusal taken away against AUROC", "a mark a candidate; ring: the chosen one", marks)


def _over_layers(record: Measured, index: int) -> str:
    """Draw one position's areas and effects over layers, in the scale of all."""
    facts, layers = record.facts, [*map(int, record.axes["layer"])]
    known = [value for rows in facts["effect"].values() for row in rows for value in row if value is not None]
    y = svg.padded([0.0, 1.0, *known])
    axes = Axes((0, layers[-1]), y, width=340, height=240, right=22)
    marks = [axes.scales(svg.whole_ticks(layers[-1]), svg.ticks(*y), x_name="layer")]
    low, high = ([*zip(layers, facts["random"][end][index], strict=True)] for end in ("low", "high"))
    marks.append(axes.area(low, high, 'class="shade"'))
    chosen = index == record.place[0]
    marks += [axes.vertical(facts["layer"], "base")] if chosen else []
    for name, colour, shape in EFFECTS:
        points = [
            (x, value) for x, value in zip(layers, facts["effect"][name][index], strict=True) if value is not None
        ]
        marks.append(axes.line(points, colour))
        marks += [axes.mark(p, f"layer {p[0]}, {name}: {percent(p[1])}", colour, shape=shape) for p in points]
    for name, colour, shape in AREAS:
        points = [*zip(layers, _areas(record, name)[index], strict=True)]
        marks.append(axes.line(points, colour))
        for x, area in points:
            low_end, high_end = facts["interval"][name][index][x]
            marks.append(axes.segment((x, low_end), (x, high_end), "whisker"))
            told = f"layer {x}, AUROC {name}: {number(area)} [{number(low_end)}, {number(high_end)}]"
            marks.append(axes.mark((x, area), told, colour, shape=shape))
    title = f"Position {_label(record, index)}" + (", chosen" if chosen else "")
    return axes.picture(title, "AUROC with 95 % intervals; effects as shares of refusal", marks)
