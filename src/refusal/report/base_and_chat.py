"""What the chat model's direction is in its base model, drawn and said (paper Figure 24)."""

from refusal import svg
from refusal.formats import percent, signed
from refusal.labels import CLASSES, Row
from refusal.report.drawing import Curve, layered, of_classes
from refusal.report.measured import Measured
from refusal.report.section import Section

TITLES = {
    "chat": ("Chat model", "in its template"),
    "base": ("Base model", "nothing before it"),
    "base in the template": ("Base model, the chat model's tokens", "in the template"),
}


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
        f"At layer {layer}, where the direction was read in the chat model, the cosine with it at a newline after the "
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
            *of_classes(),
            (svg.stroke("line", svg.GREY), "both along a random direction"),
            (svg.stroke("base"), "layer of the direction"),
        ]
    )
    figures = [_panel(record, reading) for reading in record.axes["reading"]]
    return Section("The direction in the base model", said, figures=figures, key=key)


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
    curves = [
        Curve(name, *record.at(name, reading, "found"), record.n[name], colour, svg.SHAPES[colour])
        for name, colour in CLASSES.items()
    ]
    title, note = TITLES[reading]
    return layered(
        curves,
        record.axes["layer"],
        title,
        f"{note}; mean ± 1 sd, n = {' + '.join(map(str, record.n.values()))}",
        y=svg.padded(record.edges),
        random=[record.at(name, reading, "random")[0] for name in CLASSES],
        chosen=record.layer,
        size=(340, 280),
    )
