"""Prompts with their answers side by side: all that were given, up to a size, with what every judge said of them."""

from collections.abc import Mapping
from typing import Any

from refusal.conditions import MAIN
from refusal.findings import USUAL, Findings, Row, is_harmful
from refusal.labels import name_of
from refusal.report.lead import make_believe
from refusal.report.text import folded

OPEN = 4  # prompts that are shown of each set without asking: the first ones, in the order of the set
BUDGET = 3_000_000  # characters of the page for all answers of a run
# How much is shown, until it fits: characters of an answer, share of the prompts, and whether of all conditions.
STEPS = ((20_000, 1.0, True), (4_000, 1.0, True), (4_000, 1.0, False), (1_500, 1.0, False), (1_500, 0.25, False))
PROMPT = EXAMPLE = 4_000
FRAME = 350  # characters of markup around an answer, about
TAGS = {  # what a judge's word is called beside an answer, where it is not simply "judge: word"
    ("substring", "refused"): "refused",
    ("substring", "complied"): "complied",
    ("grammar", "complied"): "exact",
    ("grammar", "incoherent"): "not exact",
}
CUT = "cut off"


def samples(findings: Findings) -> list[dict[str, Any]]:
    """Return every set of prompts with its answers: as much of them as fits into a page that can be mailed."""
    for limit, share, whole in STEPS:
        made = [_set(findings, name, limit, share, whole) for name in findings.completions]
        if sum(one["size"] for one in made) <= BUDGET:
            return made
    limit, share, whole = 500, OPEN, False  # of a run with very many prompts: the first ones alone
    return [_set(findings, name, limit, share, whole) for name in findings.completions]


def example(findings: Findings) -> list[dict[str, Any]]:
    """Return the first prompt of each set with its answer as the model is, and as the headline says it was changed."""
    found = []
    for name, done in MAIN.items():
        given = findings.completions.get(name, {})
        if "none" in given and done in given:
            labels = {kind: findings.title(name, kind) for kind in ("none", done)}
            prompt, rows = next(iter(findings.answers(name, labels).items()))
            found.append({"set": name, "folded": _hidden(findings, name), "card": _card(prompt, rows, labels, EXAMPLE)})
    return found


def _hidden(findings: Findings, name: str) -> bool:
    """Tell whether a reader has to ask for prompts and answers of a set: not where all harm in it is make-believe."""
    return is_harmful(name) and not make_believe(findings, name)


def _set(findings: Findings, name: str, limit: int, share: float, whole: bool) -> dict[str, Any]:
    """Return one set's prompts and answers; a `share` above 1 is a number of prompts."""
    labels = {kind: findings.title(name, kind) for kind in findings.completions[name] if whole or kind in USUAL}
    every = findings.answers(name, labels)
    kept = list(every.items())[: int(share) if share > 1 else max(OPEN, int(share * len(every)))]
    cards = [_card(prompt, rows, labels, limit) for prompt, rows in kept]
    tags = sorted({tag for card in cards for part in card["parts"] for one in part for tag in one["tags"]})
    return {
        "set": name,
        "folded": _hidden(findings, name),
        "open": cards[:OPEN],
        "rest": cards[OPEN:],
        "total": len(every),
        "conditions": list(labels.items()),
        "left_out": [name_of(kind) for kind in findings.completions[name] if kind not in labels],
        "tags": list(dict.fromkeys(tag for tag, _ in tags)),
        "size": sum(card["size"] for card in cards),
    }


def _card(prompt: str, rows: Mapping[str, Row], labels: Mapping[str, str], limit: int) -> dict[str, Any]:
    """Return one prompt with its answers: the usual conditions, then the others; what is the same stands there once."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    parts: list[list[dict[str, Any]]] = []
    for shown in (True, False):
        part: list[dict[str, Any]] = []
        for kind, row in ((kind, row) for kind, row in rows.items() if (kind in USUAL) is shown):
            tags = _tags(row)
            known = seen.get((row["response"], str(tags)))
            if known in part:
                known["kinds"].append(kind)
                known["labels"].append(labels[kind])
                continue
            text = None if known else folded(row["response"], limit=limit)
            same = known["labels"][0] if known else None
            part.append({"kinds": [kind], "labels": [labels[kind]], "same": same, "text": text, "tags": tags})
            seen.setdefault((row["response"], str(tags)), part[-1])
        parts.append(part)
    asked, found = folded(prompt, limit=PROMPT), [one for part in parts for one in part]
    size = asked.size + sum(FRAME + (one["text"].size if one["text"] else 0) for one in found)
    return {"prompt": asked, "parts": parts, "size": size}


def _tags(row: Row) -> list[tuple[str, str]]:
    """Return what each judge said of an answer: text and classes of a tag."""
    given = dict(row["verdicts"])
    if given.get("substring") == given.get("grammar") == "refused":
        del given["grammar"]  # says the same of it
    tags = [(TAGS.get((judge, word), f"{judge}: {word}"), f"{judge} {word}") for judge, word in given.items()]
    return [*tags, *([(CUT, "")] if row.get("finished") is False else [])]
