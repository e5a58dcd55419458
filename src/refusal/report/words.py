"""What a judge's rate is called, and what a table shows of one."""

from collections.abc import Sequence
from typing import Any

from refusal.formats import percent, span
from refusal.labels import Row


def counted(judge: str, word: str) -> str:
    """Return what a judge's headline rate counts, as a heading."""
    return "exact answers" if judge == "grammar" else {"refused": "refusals"}.get(word, f"{word} answers")


def listed(parts: Sequence[str]) -> str:
    """Return words as a sentence lists them: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def rate_cell(rate: Row, word: str) -> dict[str, Any]:
    """Return what a table shows of a rate record: the count of a word, the share, its interval."""
    return {
        "count": f"{rate[word]}/{rate['n']}",
        "rate": percent(rate["rate"]),
        "interval": span(rate, percent),
        "undetermined": rate.get("undetermined", 0),
    }
