"""What judges beside the substrings and the grammar found, and whether all of them agree on who refused."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from refusal import figures
from refusal.findings import Row
from refusal.formats import percent, signed
from refusal.labels import in_order, is_control, name_of
from refusal.report.picture import picture
from refusal.report.words import counted, rate_cell
from refusal.statistics import kappa
from refusal.verdicts import WORDS, rank

# Judges of refusal and of safety share no word: what both can say is whether the answer was withheld.
WITHHELD = ("refused", "safe")
DOUBTFUL = 0.6  # of κ, and below


def further_judges(rows: Mapping[str, Row]) -> dict[str, Any] | None:
    """Return the rates of every further judge under every intervention, with their bars; None without such a judge."""
    listed = in_order(rows)
    found = {
        judge: next(word for word in WORDS if word in cell) for _, row in listed for judge, cell in _cells(row).items()
    }
    if not found:
        return None
    measures = {judge: found[judge] for judge in sorted(found, key=rank)}
    lines = [
        {
            "label": name_of(key),
            "control": is_control(key, row),
            "cells": [
                _cells(row).get(judge) and rate_cell(_cells(row)[judge], word) for judge, word in measures.items()
            ],
        }
        for key, row in listed
    ]
    heads = [f"{counted(judge, word).capitalize()} ({judge})" for judge, word in measures.items()]
    drawn = [
        picture(
            figures.rates(listed, head, measure=judge, word=word),
            ("intervention", word, "n", "rate", "95 % low", "95 % high"),
            (
                (name_of(key), *(_cells(row)[judge][part] for part in (word, "n", "rate", "low", "high")))
                for key, row in listed
                if judge in _cells(row)
            ),
        )
        for (judge, word), head in zip(measures.items(), heads, strict=True)
    ]
    return {"heads": heads, "lines": lines, "figures": drawn}


def agreement(answers: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """Return a line a pair of judges: how far they agree on who refused, over all answers to one set of prompts."""
    every = [row["verdicts"] for key, _ in in_order({key: {} for key in answers}) for row in answers[key]]
    judges = sorted(dict.fromkeys(judge for verdicts in every for judge in verdicts), key=rank)
    return [line for pair in combinations(judges, 2) if (line := _pair(pair, every))]


def _pair(pair: tuple[str, str], every: Sequence[Mapping[str, str]]) -> dict[str, Any] | None:
    both = [tuple(verdicts[judge] for judge in pair) for verdicts in every if all(judge in verdicts for judge in pair)]
    known = [words for words in both if "undetermined" not in words]
    if not known:
        return None
    first, second = ([str(words[i] in WITHHELD) for words in known] for i in (0, 1))
    found = kappa(first, second)
    alone = found.kappa != found.kappa
    low, high = found.interval
    return {
        "judges": pair,
        "agreed": f"{found.agreed.k}/{found.agreed.n}",
        "rate": percent(found.agreed.rate),
        "kappa": "one word alone" if alone else signed(found.kappa, ".2f"),
        "interval": "" if alone else f"{signed(low, '.2f')} to {signed(high, '.2f')}",
        "undetermined": len(both) - len(known),
        "doubtful": not alone and found.kappa < DOUBTFUL,
    }


def _cells(row: Row) -> Mapping[str, Row]:
    """Return judge → rate of the judges beside the substrings and the grammar."""
    return row.get("judges") or {}
