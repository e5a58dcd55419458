"""Answers as they are shown: markup at a readable pace, and whatever goes wrong as a message."""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from refusal.errors import RefusalError
from refusal.explorer.grid import Picked
from refusal.explorer.live import DONE, Answer, Live, scales, ways
from refusal.explorer.markup import render
from refusal.formats import coefficient_text, visible
from refusal.generation import Completion
from refusal.judges.substring import Substring
from refusal.labels import label_of
from refusal.ways import Way

NAMES = {"none": "Plain", "ablation": "Ablated", "addition": "Added"}
STATES = {
    "waiting": "…",
    "writing": "writing …",
    "ended": "ended by itself",
    "cut off": "cut off at the longest length",
    "stopped": "stopped",
}
PACE = 0.1  # seconds between two updates of the answers; those of the tokens come ten times as rarely
SETTLE = 0.25  # seconds that a slider has to rest


def watch(
    live: Live, prompt: str, picked: Picked, coefficient: float, *, going: Callable[[], bool], settle: float = SETTLE
) -> Iterator[tuple[str | None, str | None]]:
    """Answer a prompt and yield what changes on the page: the answers, and the tokens with their components.

    None is what stays as it is. Every error is a message in place of the answers; ours in words, any other with its
    traceback in the terminal.
    """
    time.sleep(settle)
    if not going():
        return
    try:
        first, second = (
            None if place is None else live.candidates.at(*place) for place in (picked.first, picked.second)
        )
        assert first is not None
        asked = ways(first, second, coefficient)
        last = 0.0
        tokens_last, shown = 0.0, list[Answer]()
        for shown in live.answers(prompt, asked, going=going):
            now = time.monotonic()
            if now - last >= PACE:
                strips = strip(live, shown) if now - tokens_last >= 10 * PACE else None
                last, tokens_last = now, tokens_last if strips is None else now
                yield answers(shown), strips
        yield answers(shown), strip(live, shown)
    except RefusalError as error:
        yield message(str(error)), None
    except Exception as error:  # whatever a model's own code may raise
        traceback.print_exc(file=sys.stderr)
        yield message(f"The model stopped with {type(error).__name__}: {error}"), None


def answers(shown: Sequence[Answer]) -> str:
    """Return the answers side by side."""
    return render("answers", {"answers": [_answer(answer, shown[0].way) for answer in shown]})


def strip(live: Live, shown: Sequence[Answer]) -> str:
    """Return every token of every answer with its components, to be coloured at any layer."""
    strips = [{**_told(answer.way, shown[0].way), "tokens": _tokens(answer)} for answer in shown if answer.tokens]
    held = scales(live.candidates, shown[0].way.direction.position) if shown else ()
    return render("strips", {"strips": strips, "scales": " ".join(f"{value:.4g}" for value in held)})


def message(text: str) -> str:
    """Return a message in place of what could not be shown."""
    return render("message", {"text": text})


def _told(way: Way, first: Way) -> dict[str, Any]:
    """Return what a way to answer is called, with which of the two directions, and its colour."""
    strength = f" · {coefficient_text(way.coefficient)}" if way.kind == "addition" else ""
    with_what = "" if way.direction is first.direction else " · B"
    return {"title": NAMES[way.kind] + strength + with_what, "colour": label_of(way.kind).colour}


def _answer(answer: Answer, first: Way) -> dict[str, Any]:
    done = answer.state in DONE
    (verdict,) = Substring()([Completion("", answer.response)])
    count = len(answer.tokens)
    return {
        **_told(answer.way, first),
        "text": answer.response,
        "writing": not done and answer.state != "stopped",
        "refused": verdict.word == "refused",
        "note": f"{count} token{'s' * (count != 1)}, {STATES[answer.state]}" if count else STATES[answer.state],
    }


def _tokens(answer: Answer) -> list[dict[str, Any]]:
    texts = [*answer.prompt_tokens, *answer.tokens]
    read: list[Sequence[float]] = [*answer.components, *[()] * (len(texts) - len(answer.components))]
    return [
        {
            "text": visible(text) or "∅",
            "break": text.endswith("\n"),
            "prompt": i < len(answer.prompt_tokens),
            "components": " ".join(f"{value:.3g}" for value in components),
        }
        for i, (text, components) in enumerate(zip(texts, read, strict=True))
    ]
