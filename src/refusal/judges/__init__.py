"""Completion → verdict. A judge is a function of one completion; None, "undetermined", is a verdict too.

substring.py  the paper's refusal score: one of twelve phrases stands in the answer
grammar.py    the bundled chat model only: the answer is exactly what its language asks for
read.py       completions from our files or from the official code's
"""

from collections.abc import Callable, Sequence

from refusal.errors import BadInput
from refusal.generation import Completion
from refusal.judges.grammar import is_exact
from refusal.judges.substring import is_refusal
from refusal.statistics import Rate, count

Verdict = bool | None
JUDGES: dict[str, Callable[[Completion], Verdict]] = {"substring": is_refusal, "grammar": is_exact}


def verdicts(completions: Sequence[Completion], *, by: str = "substring") -> list[Verdict]:
    """Return one judge's verdict on every completion. Raises BadInput for a judge that does not exist."""
    if by not in JUDGES:
        raise BadInput(f"There is no judge '{by}'. Give one of {', '.join(JUDGES)}.")
    return [JUDGES[by](completion) for completion in completions]


def judge(completions: Sequence[Completion], *, by: str = "substring") -> Rate:
    """Count a judge's verdicts: by default refusals of the paper's substring score (paper section 2.5 and D.1)."""
    return count(verdicts(completions, by=by))
