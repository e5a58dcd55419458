"""Recorded answers → values of the page: prompts with their answers side by side. No model, no torch."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from refusal.findings import USUAL, Findings, is_harmful
from refusal.labels import Row, label_of

PAGE = 5  # prompts at a time
EVERYTHING, CHANGED = "every prompt", "where the judge's word changes"
FILTERS = (EVERYTHING, CHANGED)


def conditions(findings: Findings, name: str) -> list[tuple[str, str]]:
    """Return the recorded conditions of a set, in reading order: (what they are called, their name)."""
    return [(findings.title(name, condition), condition) for condition in findings.completions.get(name, {})]


def usual(findings: Findings, name: str) -> list[str]:
    """Return the conditions of a set that are shown unless others are chosen."""
    there = list(findings.completions.get(name, {}))
    return [condition for condition in USUAL if condition in there] or there[:4]


def answers(
    findings: Findings, name: str, shown: Sequence[str], *, text: str = "", which: str = EVERYTHING, page: int = 1
) -> dict[str, Any]:
    """Return one page of a set's prompts with their answers; harmful ones are folded.

    `text` is looked for in prompts and answers, in any case; `which` is one of FILTERS.
    """
    titles = {condition: title for title, condition in conditions(findings, name) if condition in shown}
    prompts = _prompts(findings, name, titles)
    cards = [
        {
            "number": i,
            "prompt": prompt,
            "answers": [_answer(titles[condition], condition, row) for condition, row in rows.items()],
        }
        for i, ((prompt, _), rows) in enumerate(prompts.items(), start=1)
    ]
    found = [card for card in cards if _holds(card, text.strip().lower()) and (which != CHANGED or _changes(card))]
    pages = max(1, -(-len(found) // PAGE))
    at = min(max(1, page), pages)
    return {
        "cards": found[(at - 1) * PAGE : at * PAGE],
        "found": len(found),
        "total": len(prompts),
        "page": at,
        "pages": pages,
        "folded": is_harmful(name),
        "text": text.strip(),
    }


def _prompts(findings: Findings, name: str, shown: Iterable[str]) -> dict[tuple[str, int], dict[str, Row]]:
    """Return a set's prompts with their answers; one that stands in the set twice (the paper's do) is there twice."""
    found: dict[tuple[str, int], dict[str, Row]] = {}
    for condition in shown:
        times: Counter[str] = Counter()
        for row in findings.completions[name][condition]:
            found.setdefault((row["prompt"], times[row["prompt"]]), {})[condition] = row
            times[row["prompt"]] += 1
    return found


def _answer(title: str, condition: str, row: Row) -> dict[str, Any]:
    return {
        "title": title,
        "colour": label_of(condition).colour,
        "text": row["response"],
        "verdicts": [{"judge": judge, "word": word} for judge, word in row["verdicts"].items()],
        "cut": row.get("finished") is False,
    }


def _holds(card: Mapping[str, Any], text: str) -> bool:
    return not text or any(text in each.lower() for each in (card["prompt"], *(a["text"] for a in card["answers"])))


def _changes(card: Mapping[str, Any]) -> bool:
    """Tell whether the first judge says different things of the answers to one prompt."""
    return len({answer["verdicts"][0]["word"] for answer in card["answers"] if answer["verdicts"]}) > 1
