"""What conditions and kinds of prompts are called, in which colour and in which order they are shown. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from refusal.conditions import read_condition
from refusal.formats import Number, coefficient_text
from refusal.svg import GREY

Row = Mapping[str, Any]
CLASSES = {"harmful": 1, "harmless": 0}  # the two kinds of prompts, and their colours


@dataclass(frozen=True)
class Label:
    """How one condition is shown to a reader."""

    name: str
    note: str = ""  # what has to be said beside the name
    colour: int = GREY  # of the figures; grey is for controls
    strength: str = ""  # after the name, where no coefficient stands there
    control: bool = False
    place: tuple[int, ...] = ()  # in reading order


# Kind and whose vector → label, in reading order: each control behind what it controls.
_LABELS = {
    ("none", "direction"): Label("No intervention", colour=2),
    ("ablation", "direction"): Label("Directional ablation", "the direction's component removed at every layer", 0),
    ("ablation", "random"): Label("Random direction ablated", "control of ablation"),
    ("ablation", "shuffled"): Label(
        "Shuffled direction ablated", "control: found as the direction was, with shuffled labels"
    ),
    ("ablation", "worst"): Label(
        "Worst candidate ablated", "control: another layer or position, with the highest bypass score"
    ),
    ("weights", "direction"): Label("Edited weights", "the same ablation, baked into the weights", 0),
    ("addition", "direction"): Label("Activation addition", "the direction added at its layer", 1),
    ("addition", "random"): Label("Random direction added", "control of addition, of the same length"),
    ("addition", "shuffled"): Label("Shuffled direction added", "control: shuffled labels, scaled to the same length"),
    ("addition", "worst"): Label(
        "Worst candidate added", "control: another layer or position, scaled to the same length"
    ),
}
_STRENGTHS = {1.0: "", 0.5: ", half", 2.0: ", double", -1.0: ", opposite"}
_NOTES = {0.5: "half of it", 2.0: "twice as much", -1.0: "the opposite sign"}


def label_of(name: str) -> Label:
    """Return the label of a condition by its name; one that no run gives has its name alone, and comes last."""
    condition = read_condition(name)
    if condition is None:
        return Label(name, place=(len(_LABELS),))
    key = condition.kind, condition.source
    found, number = _LABELS[key], f" {condition.draw + 1}" if condition.draw else ""
    return replace(
        found,
        name=found.name + number,
        note=_NOTES.get(condition.factor, found.note),
        strength=_STRENGTHS[condition.factor],
        control=condition.is_control,
        place=([*_LABELS].index(key), [*_STRENGTHS].index(condition.factor), condition.draw),
    )


def name_of(condition: str, coefficient: Number | None = None) -> str:
    """Return a condition's name for a reader: with its number among random ones, and its coefficient or strength."""
    found = label_of(condition)
    return found.name + (found.strength if coefficient is None else f", {coefficient_text(coefficient)}")


def in_order(rows: Mapping[str, Row]) -> list[tuple[str, Row]]:
    """Return one set's rows of `results.json` in reading order, each control behind what it controls.

    `random` is left out where it only repeats the row of a `random_…` intervention.
    """
    repeated = {k: v for k, v in rows.get("random", {}).items() if k != "control_of"}
    again = any(row == repeated for name, row in rows.items() if name.startswith("random_"))
    shown = [name for name in rows if not (name == "random" and again)]
    return [(name, rows[name]) for name in sorted(shown, key=lambda name: label_of(name).place)]


def is_control(name: str, row: Row) -> bool:
    """Tell whether a row of `results.json` is a control's."""
    return label_of(name).control or "control_of" in row
