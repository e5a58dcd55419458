"""Answers as they are shown: markup at a readable pace, and whatever goes wrong as a message."""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from refusal.config import BUNDLED
from refusal.errors import RefusalError
from refusal.explorer.asked import not_understood
from refusal.explorer.grid import Picked
from refusal.explorer.live import DONE, Answer, Live, scales, ways
from refusal.explorer.markup import render
from refusal.formats import coefficient_text, visible
from refusal.generation import Completion
from refusal.judges.grammar import Grammar
from refusal.judges.substring import Substring
from refusal.labels import label_of
from refusal.ways import Way

NAMES = {"none": "Plain", "ablation": "Ablated", "addition": "Added"}
STATES = {
    "waiting": "…",
    "writing": "writing …",
    "ended": "ended by itself",
    "cut off": "cut off at the limit of length",
    "stopped": "stopped",
}
WORDS = {"complied": "right answer", "incoherent": "neither"}  # the grammar's, of what holds no refusal phrase
PACE = 0.1  # seconds between two updates of the answers; those of the tokens come ten times as rarely
SETTLE = 0.25  # seconds that a slider has to rest

NO_TOKENS = render("strips", {"strips": []})


def watch(
    live: Live,
    prompt: str,
    picked: Picked,
    coefficient: float,
    *,
    called: str = "Prompt",
    beside: tuple[str, str] | None = None,
    going: Callable[[], bool],
    settle: float = SETTLE,
) -> Iterator[tuple[str | None, str | None]]:
    """Answer a prompt and yield what changes on the page: the answers, and the tokens with their components.

    None is what stays as it is. `beside` is what a further prompt is `called`, and that prompt, answered in the same
    ways. Every error is a message in place of the answers, and no tokens; ours in words, any other with its traceback
    in the terminal.
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
        further = [(beside[1], way) for way in asked[:3]] if beside else []
        names = {prompt: called, **({beside[1]: beside[0]} if beside else {})}
        last = 0.0
        tokens_last, shown = 0.0, list[Answer]()
        for shown in live.answers(prompt, asked, beside=further, going=going):
            now = time.monotonic()
            if now - last >= PACE:
                strips = strip(live, shown[: len(asked)]) if now - tokens_last >= 10 * PACE else None
                last, tokens_last = now, tokens_last if strips is None else now
                yield answers(live, shown, names), strips
        yield answers(live, shown, names), strip(live, shown[: len(asked)])
    except RefusalError as error:
        yield message(str(error)), NO_TOKENS
    except Exception as error:  # whatever a model's own code may raise
        traceback.print_exc(file=sys.stderr)
        yield message(f"The model stopped with {type(error).__name__}: {error}"), NO_TOKENS


def answers(live: Live, shown: Sequence[Answer], names: Mapping[str, str]) -> str:
    """Return the answers side by side, those to one prompt (called by its name) after those to another."""
    bundled = live.model.name == BUNDLED
    groups = [
        {
            "name": name,
            "prompt": prompt,
            "note": not_understood(prompt) if bundled else "",
            "answers": [_answer(live, answer, shown[0].way) for answer in shown if answer.prompt == prompt],
        }
        for prompt, name in names.items()
    ]
    return render("answers", {"groups": groups})


def strip(live: Live, shown: Sequence[Answer]) -> str:
    """Return every token of every answer with its components, to be coloured at any layer."""
    compared = any(answer.way.direction is not shown[0].way.direction for answer in shown)
    strips = [
        {**_told(answer.way, shown[0].way), **_held(live, answer), "compared": compared, "tokens": _tokens(answer)}
        for answer in shown
        if answer.tokens
    ]
    return render("strips", {"strips": strips})


def _held(live: Live, answer: Answer) -> dict[str, str]:
    """Return what the components of an answer are held to, at every layer."""
    held = scales(live.candidates, answer.way.direction.position)
    return {"scales": " ".join(f"{value:.4g}" for value in held)}


def message(text: str) -> str:
    """Return a message in place of what could not be shown."""
    return render("message", {"text": text})


def _told(way: Way, first: Way) -> dict[str, Any]:
    """Return what a way to answer is called, with which of the two directions, and its colour."""
    strength = f" · {coefficient_text(way.coefficient)}" if way.kind == "addition" else ""
    letter = "A" if way.direction is first.direction else "B"
    with_what = "" if letter == "A" else f" · {letter}"
    return {"title": NAMES[way.kind] + strength + with_what, "colour": label_of(way.kind).colour, "letter": letter}


def _answer(live: Live, answer: Answer, first: Way) -> dict[str, Any]:
    done = answer.state in DONE
    count = len(answer.tokens)
    return {
        **_told(answer.way, first),
        "text": answer.response,
        "writing": not done and answer.state != "stopped",
        "kind": answer.way.kind,
        "word": _word(answer, graded=live.graded and done),
        "note": f"{count} token{'s' * (count != 1)}, {STATES[answer.state]}" if count else STATES[answer.state],
    }


def _word(answer: Answer, *, graded: bool) -> str:
    """Return what an answer is: a refusal by its phrases, or what the grammar of the bundled language says of it."""
    said = Completion(answer.prompt, answer.response)
    (verdict,) = Substring()([said])
    if verdict.word == "refused":
        return "refusal"
    (by_grammar,) = Grammar()([said]) if graded else (None,)
    return WORDS.get(by_grammar.word, "") if by_grammar else ""


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
