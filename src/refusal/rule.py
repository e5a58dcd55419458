"""The selection rule: which candidate wins, and why every other one did not.

The official code's rule (its filter function and its sort), not the paper's prose: the two differ in the layer
cut and in the equalities, and only the code's rule gives the paper's own Table 5. See `docs/method.md`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

from refusal.errors import BadInput, BadSetting, NoDirection

SELECTED = "selected"
SURVIVOR = "survivor"  # passes every limit, but another candidate has a lower bypass score
NO_DIFFERENCE = "no difference"  # both class means are the same vector, as at layer 0 under a fixed template
NOT_A_NUMBER = "not a number"
LATE_LAYER = "late layer"
HIGH_KL = "KL above limit"
LOW_INDUCE = "induce below limit"
NOT_SCORED = "not scored"  # a fast sweep knew that it cannot win before all of its scores were measured
GIVEN = (NO_DIFFERENCE, NOT_SCORED)  # the rule cannot find these again from the scores


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a candidate has to keep to (paper section C.1)."""

    max_kl: float = 0.1
    min_induce: float = 0.0
    prune_layers: float = 0.2  # share of the last layers that is never chosen

    def __post_init__(self) -> None:
        if isnan(self.max_kl) or isnan(self.min_induce):
            raise BadSetting(
                f"max_kl is {self.max_kl} and min_induce {self.min_induce}: give numbers; inf is no limit."
            )
        if not 0 <= self.prune_layers < 1:
            raise BadSetting(
                f"prune_layers is {self.prune_layers}: it is the share of last layers left out, so give 0 ≤ share < 1."
            )

    def first_pruned(self, n_layers: int) -> int:
        """Return the first layer that is cut: `int(L·(1 − share))`, rounded down as in the official code."""
        return int(n_layers * (1.0 - self.prune_layers))


OFFICIAL = Limits()


@dataclass(frozen=True)
class Score:
    """One candidate's three scores; lower bypass, higher induce and lower KL are better."""

    position: int  # negative: −1 is the last post-instruction token
    layer: int
    bypass: float  # refusal metric on harmful prompts while the candidate is ablated
    induce: float  # refusal metric on harmless prompts while the candidate is added
    kl: float  # KL(baseline ‖ ablated) on harmless prompts, nats
    verdict: str = ""


@dataclass(frozen=True)
class Verdicts:
    """Every candidate with its verdict, in enumeration order."""

    scores: tuple[Score, ...]

    @property
    def chosen(self) -> Score:
        """The winner. Raises NoDirection, with the count of every verdict, when nothing passes."""
        for score in self.scores:
            if score.verdict == SELECTED:
                return score
        raise NoDirection(_why_none(self.scores))

    @property
    def survivors(self) -> int:
        """How many candidates pass every limit, the winner included."""
        return sum(score.verdict in (SELECTED, SURVIVOR) for score in self.scores)

    def summary(self) -> dict[str, float | int]:
        """Return the chosen coordinates, their scores, and survivors of total: what results and `select` print."""
        s = self.chosen
        return {
            "position": s.position,
            "layer": s.layer,
            "bypass": s.bypass,
            "induce": s.induce,
            "kl": s.kl,
            "survivors": self.survivors,
            "total": len(self.scores),
        }


def choose(scores: Iterable[Score], n_layers: int, *, limits: Limits = OFFICIAL) -> Verdicts:
    """Give every candidate its verdict: lowest bypass among those within the limits, ties to the first.

    `scores` come in enumeration order (position from −P to −1, layers ascending inside), which settles ties as the
    official stable sort does. Raises BadInput for no scores or a layer that the model does not have.
    """
    listed = list(scores)
    if not listed:
        raise BadInput("There are no candidate scores to choose from: the list is empty.")
    odd = next((score.layer for score in listed if score.layer not in range(n_layers)), None)
    if odd is not None:
        raise BadInput(f"A candidate is at layer {odd}, but the model has {n_layers} layers (0 to {n_layers - 1}).")
    judged = [_with_verdict(score, n_layers, limits) for score in listed]
    passing = [i for i, score in enumerate(judged) if score.verdict == SURVIVOR]
    if passing:
        best = min(passing, key=lambda i: judged[i].bypass)  # min keeps the first of equals
        judged[best] = replace(judged[best], verdict=SELECTED)
    return Verdicts(tuple(judged))


def read_scores(path: Path) -> list[Score]:
    """Read recorded scores: our `selection.jsonl`, or the official `direction_evaluations.json`.

    The official file may hold a bare NaN, which Python's reader takes. Raises BadInput for anything else.
    """
    text = _read_text(path)
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(t) for t in text.splitlines() if t]
        if not rows:
            raise ValueError("it is empty")
        return [read_score(row) for row in rows]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} does not hold candidate scores ({type(error).__name__}: {error}). Expected our selection.jsonl "
            "(position, layer, bypass, induce, kl) or the official direction_evaluations.json."
        ) from error


def read_complete_scores(path: Path) -> list[Score]:
    """Read recorded scores to choose from under any limits. Raises BadInput for the table of a fast sweep as well."""
    scores = read_scores(path)
    if left := sum(score.verdict == NOT_SCORED for score in scores):
        raise BadInput(
            f"{path} is the table of a fast sweep: {left} of its {len(scores)} candidates were not scored, because "
            "they could not win under its own limits. Score all of them with --sweep full to choose again under others."
        )
    return scores


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"Cannot read the scores in {path}: {error}. Give a JSON or JSON-lines file.") from error


def read_score(row: Any) -> Score:
    """Turn one recorded row into a score: ours, or one under the official code's names. Null is not a number.

    Of verdicts only "no difference" and "not scored" are kept: the rule cannot find them again from the scores.
    """
    # Through text, so that a stray `true` is an error and not a 1.
    names = ("bypass", "induce", "kl") if "bypass" in row else ("refusal_score", "steering_score", "kl_div_score")
    bypass, induce, kl = (float("nan") if row[name] is None else float(str(row[name])) for name in names)
    verdict = row["verdict"] if row.get("verdict") in GIVEN else ""
    return Score(int(str(row["position"])), int(str(row["layer"])), bypass, induce, kl, verdict)


def _with_verdict(score: Score, n_layers: int, limits: Limits) -> Score:
    if score.verdict in GIVEN:
        return score
    if isnan(score.bypass) or isnan(score.induce) or isnan(score.kl):
        return replace(score, verdict=NOT_A_NUMBER)
    if score.layer >= limits.first_pruned(n_layers):
        return replace(score, verdict=LATE_LAYER)
    if score.kl > limits.max_kl:
        return replace(score, verdict=HIGH_KL)
    if score.induce < limits.min_induce:
        return replace(score, verdict=LOW_INDUCE)
    return replace(score, verdict=SURVIVOR)


def _why_none(scores: Sequence[Score]) -> str:
    counts = Counter(score.verdict for score in scores)
    listed = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    return (
        f"None of {len(scores)} candidates passes the selection rule ({listed}). Look at the scores in the run folder; "
        "then loosen max_kl, min_induce or prune_layers, give more or other prompts, or check the refusal tokens."
    )
