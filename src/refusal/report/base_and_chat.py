"""What the chat model's direction is in its base model, drawn and said (paper Figure 24)."""

from refusal import svg
from refusal.formats import number, percent, signed
from refusal.labels import CLASSES
from refusal.report.measured import Measured
from refusal.report.section import Row, Section
from refusal.svg import Axes

TITLES = {
    "chat": ("Chat model", "in its template"),
    "base": ("Base model", "nothing before it"),
    "base in the template": ("Base model, the chat model's tokens", "in the template"),
}
GREY_LINE = '<path class="line" stroke="var(--c7)" d="M-9 0H9"/>'


def section(record: Measured) -> Section:
    """Say how far the direction parts the classes in both models, and draw its cosines over layers."""
    facts, n = record.facts, record.n
    layer, at = facts["layer"], record.layer
    told, apart = {}, {}
    for reading in record.axes["reading"]:
        (a, s), (b, t) = ((row[at] for row in record.at(name, reading, "found")) for name in CLASSES)
        told[reading] = f"{signed(a, '.2f')} ± {s:.2f} and {signed(b, '.2f')} ± {t:.2f}"
        apart[reading] = a - b
    chance = {name: rows[at] for name, rows in facts["chance"]["largest difference"].items()}
    above, own = facts["before the base model's instruction"], signed(apart["base in the template"], ".2f")
    said = [
        f"At layer {layer}, where the direction was read in the chat model, the cosine with it at a newline behind the "
        f"instruction is {told['chat']} in the chat model on {n['harmful']} harmful and {n['harmless']} harmless "
        f"prompts, and {told['base']} in the base model (mean ± standard deviation).",
        f"So {_share(apart['base'], apart['chat'])} of the difference between the classes, {_gaps(apart, 'base')}, "
        f"is in the base model already. {_beside_chance(apart['base'], chance['base'], facts)}",
        "The base model is given nothing before the instruction"
        + (f" but the token {above}" if above else "")
        + f". Given the chat model's own tokens, the difference in it is {own} ({told['base in the template']}).",
        "A cosine is no effect: whether the direction also does something in the base model is not shown here.",
    ]
    key = svg.key(
        [
            *((svg.dot(colour, svg.SHAPES[colour]), f"{name} prompts") for name, colour in CLASSES.items()),
            (GREY_LINE, "both along a random direction"),
            (svg.stroke("base"), "layer of the direction"),
        ]
    )
    figures = [_panel(record, reading) for reading in record.axes["reading"]]
    title = "The direction in the base model"
    return {"title": title, "said": said, "figures": figures, "key": key, "table": None}


def _share(part: float, whole: float) -> str:
    return percent(part / whole) if part > 0 and whole > 0 else "nothing"


def _gaps(apart: dict[str, float], reading: str) -> str:
    return f"{signed(apart[reading], '.2f')} of {signed(apart['chat'], '.2f')}"


def _beside_chance(gap: float, chance: float, facts: Row) -> str:
    draws = facts["chance"]["draws"]
    known = f"Of {draws} random directions the one that parts them most does so by {chance:.2f}"
    return (
        f"{known}, {'so that is more than chance' if gap > chance else 'so that is not shown to be more than chance'}."
    )


def _panel(record: Measured, reading: str) -> str:
    """Draw one model's cosines over layers, in the scale of all."""
    names, n = record.axes["layer"], record.n
    every = [
        row
        for name in CLASSES
        for one in record.axes["reading"]
        for vector in record.axes["vector"]
        for row in zip(*record.at(name, one, vector), strict=True)
    ]
    last = len(names) - 1
    axes = Axes((0, last), svg.padded(m + side * s for m, s in every for side in (-1, 1)), width=340, right=22)
    shown = [x for x in svg.whole_ticks(last - 1) if (last - x) * 8 >= last]  # the others would lie under "final"
    marks = [axes.scales(shown, svg.ticks(*axes.y), x_name="layer (input of the block)")]
    marks += [axes.text((last, axes.y[0]), names[-1], dy=15, anchor="middle")]
    marks.append(axes.vertical(record.layer, "base"))
    marks += [axes.line([*enumerate(record.at(name, reading, "random")[0])], svg.GREY) for name in CLASSES]
    for name, colour in CLASSES.items():
        mean, sd = record.at(name, reading, "found")
        marks += [axes.band([*zip(range(last + 1), mean, sd, strict=True)], colour)]
        marks += [axes.line([*enumerate(mean)], colour)]
        for x, (m, s) in enumerate(zip(mean, sd, strict=True)):
            told = f"{name}, layer {names[x]}: {number(m)} ± {number(s)} (n = {n[name]})"
            marks.append(axes.mark((x, m), told, colour, shape=svg.SHAPES[colour]))
    title, note = TITLES[reading]
    return axes.picture(title, f"{note}; mean ± 1 sd, n = {' + '.join(map(str, n.values()))}", marks)
