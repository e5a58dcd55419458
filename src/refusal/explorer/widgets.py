"""What the live page and that of the records are both made of: markup, the heat map, the facts of a direction."""

from functools import partial
from typing import Any

import gradio as gr

from refusal.explorer import grid, live
from refusal.explorer.grid import Picked
from refusal.explorer.markup import render
from refusal.explorer.opening import Subject
from refusal.figures import SCORES
from refusal.formats import number, signed

QUICK: Any = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
GRID_JS = "window.explorer.grid(element, (name, data) => trigger('pick', data), watch);"


def html(value: str = "", *, elem_id: str | None = None, js_on_load: str | None = None) -> Any:
    """Return a part of the page that is markup, as it stands."""
    return gr.HTML(value, elem_id=elem_id, js_on_load=js_on_load, apply_default_css=False)


def heat_map(subject: Subject, picked: gr.State) -> tuple[gr.Radio, Any]:
    """Return what the candidates are coloured by, and their heat map, whose `pick` tells of a click."""
    score = gr.Radio(
        [(title, name) for name, (title, _) in SCORES.items()], value="bypass", label="Colour by", container=False
    )
    heat: Any = html(grid_of(subject, "bypass", subject.picked), elem_id="heat", js_on_load=GRID_JS)
    score.input(partial(grid_of, subject), [score, picked], heat, **QUICK)
    return score, heat


def grid_of(subject: Subject, score: str, picked: Picked | None) -> str:
    """Return the heat map of a subject, coloured by a score."""
    return render("grid", grid.grid(subject.findings.selection, subject.findings.tokens, score, picked))


def facts_of(subject: Subject, running: live.Live | None, picked: Picked | None) -> str:
    """Return what is known of the direction, and of the one it is compared with."""
    if picked is None:
        return ""
    rows, tokens = grid.places(subject.findings.selection), subject.findings.tokens
    cards, directions = [], []
    for letter, place in (("A", picked.first), ("B", picked.second)):
        if place is not None:
            direction = running.candidates.at(*place) if running else None
            directions.append(direction)
            norm = number(direction.norm) if direction else ""
            cards.append({"letter": letter, "norm": norm, **grid.facts(rows.get(place), place, tokens)})
    both = [direction for direction in directions if direction]
    cosine = signed(live.cosine(*both)) if len(both) == 2 else ""
    return render("facts", {"cards": cards, "cosine": cosine})
