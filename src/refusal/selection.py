"""Three scores per candidate, a verdict for every loser, and the direction that wins."""

from dataclasses import dataclass
from typing import Literal

from refusal.direction import Candidates, Direction
from refusal.extraction import Prompts
from refusal.model import ChatModel
from refusal.refusal_tokens import RefusalTokens, find_refusal_tokens
from refusal.rule import OFFICIAL, Limits, Score, Verdicts, choose
from refusal.sweep import prepare, sweep


@dataclass(frozen=True, eq=False)
class Selection:
    """The outcome of a sweep: every candidate's scores and verdict, and the winner as a direction."""

    candidates: Candidates
    verdicts: Verdicts
    tokens: RefusalTokens

    @property
    def best(self) -> Direction:
        """The chosen direction. Raises NoDirection, saying why each candidate lost, when nothing passes."""
        chosen = self.verdicts.chosen
        return self.candidates.at(chosen.position, chosen.layer)

    @property
    def scores(self) -> tuple[Score, ...]:
        """Every candidate's scores and verdict, positions ascending and layers ascending inside."""
        return self.verdicts.scores


def select_direction(
    model: ChatModel,
    candidates: Candidates,
    harmful: Prompts,
    harmless: Prompts,
    *,
    tokens: RefusalTokens | None = None,
    limits: Limits = OFFICIAL,
    how: Literal["full", "fast"] = "full",
) -> Selection:
    """Score every candidate on validation prompts and choose by the official rule (paper sections 2.3 and C.1).

    `how="fast"` measures only what the choice can depend on: the same choice, with gaps in the table of scores.
    Refusal tokens are found by `find_refusal_tokens` when not given. A choice that nothing passes shows when
    `Selection.best` is asked for.
    """
    validation = prepare(model, harmful, harmless, tokens=tokens or find_refusal_tokens(model, harmful, harmless))
    scores = sweep(model, candidates, validation=validation, how=how, limits=limits)
    return Selection(candidates, choose(scores, candidates.n_layers, limits=limits), validation.tokens)
