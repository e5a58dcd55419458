"""Judgements of a run → paired tests between conditions, on the same prompts. No torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from refusal.conditions import Condition, with_controls
from refusal.statistics import holm, mcnemar
from refusal.verdicts import Word, read_verdicts

Answers = list[bool | None]
LEVEL = 0.05  # of a test's p, corrected where there are several, below which conditions are said to differ


def compare(folder: Path, name: str, listed: Sequence[Condition], measures: dict[str, Word]) -> list[dict[str, Any]]:
    """Return the exact McNemar test of every pair that a reader asks about, for each judge of one evaluation set.

    Each condition is held against no intervention, and each intervention with the direction against its controls.
    `measures` says which word of a judge is counted; a prompt that either judgement leaves undetermined is left out.
    `p_holm` is p corrected for the number of pairs of this set and judge (Holm 1979).
    """
    rows = []
    for judge, word in measures.items():
        found = {one.name: answers for one in listed if (answers := _answers(folder, name, one.name, judge, word))}
        pairs = [(first, second) for first, second in _pairs(listed) if first in found and second in found]
        tests = [mcnemar(found[first], found[second]).record() for first, second in pairs]
        corrected = holm([test["p_value"] for test in tests])
        rows += [
            {"set": name, "judge": judge, "measure": word, "first": first, "second": second, **test, "p_holm": p}
            for (first, second), test, p in zip(pairs, tests, corrected, strict=True)
        ]
    return rows


def _pairs(listed: Sequence[Condition]) -> Iterator[tuple[str, str]]:
    for one in listed:
        if one.kind != "none":
            yield one.name, "none"
    yield from with_controls(listed)
    yield "weights", "ablation"


def _answers(folder: Path, name: str, condition: str, judge: str, word: Word) -> Answers:
    path = folder / "judgements" / f"{name}.{condition}.{judge}.jsonl"
    if not path.exists():
        return []
    return [None if verdict.word == "undetermined" else verdict.word == word for verdict in read_verdicts(path)]
