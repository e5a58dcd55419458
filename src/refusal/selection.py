"""Three scores per candidate, a verdict for every loser, and the direction that wins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from refusal import engine, equations
from refusal.direction import Candidates, Direction
from refusal.extraction import Prompts, encode
from refusal.interventions import ablate, add
from refusal.model import ChatModel
from refusal.refusal_tokens import RefusalTokens, find_refusal_tokens
from refusal.rule import NO_DIFFERENCE, OFFICIAL, Limits, Score, Verdicts, choose

NAN = float("nan")


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


@dataclass(frozen=True, eq=False)
class Validation:
    """The validation prompts of a sweep, encoded once, with what the untouched model says to them."""

    harmful: Sequence[Sequence[int]]
    harmless: Sequence[Sequence[int]]
    harmless_logits: Float[Tensor, "n v"]
    tokens: RefusalTokens
    baseline: dict[str, float]  # mean refusal metric without intervention, by class


def select_direction(
    model: ChatModel,
    candidates: Candidates,
    harmful: Prompts,
    harmless: Prompts,
    *,
    tokens: RefusalTokens | None = None,
    limits: Limits = OFFICIAL,
) -> Selection:
    """Score every candidate on validation prompts and choose by the official rule (paper sections 2.3 and C.1).

    Refusal tokens are found by `find_refusal_tokens` when not given. A choice that nothing passes shows when
    `Selection.best` is asked for.
    """
    validation = prepare(model, harmful, harmless, tokens=tokens or find_refusal_tokens(model, harmful, harmless))
    scores = sweep(model, candidates, validation=validation)
    return Selection(candidates, choose(scores, candidates.n_layers, limits=limits), validation.tokens)


def sweep(
    model: ChatModel,
    candidates: Candidates,
    *,
    validation: Validation,
    skip: Mapping[int, Score] | None = None,
    report: Callable[[int, Score], None] | None = None,
) -> list[Score]:
    """Score every candidate, positions ascending and layers ascending inside, as the official code enumerates them.

    `skip` holds scores already known by their place in that order, and `report` is called with every new one, so that
    a caller can keep and resume a long sweep.
    """
    scores = dict(skip or {})
    pairs = [(position, layer) for position in candidates.positions for layer in range(candidates.n_layers)]
    for index, (position, layer) in enumerate(pairs):
        if index not in scores:
            scores[index] = score_candidate(model, candidates, position, layer, validation=validation)
            if report:
                report(index, scores[index])
    return [scores[index] for index in range(len(pairs))]


def prepare(model: ChatModel, harmful: Prompts, harmless: Prompts, *, tokens: RefusalTokens) -> Validation:
    """Encode the validation prompts and run them once without intervention."""
    encoded = encode(model, harmful), encode(model, harmless)
    logits = [engine.last_logits(model, rows) for rows in encoded]
    means = [float(equations.refusal_metric(x, tokens.tensor).mean()) for x in logits]
    return Validation(*encoded, logits[1], tokens, {"harmful": means[0], "harmless": means[1]})


def score_candidate(
    model: ChatModel, candidates: Candidates, position: int, layer: int, *, validation: Validation
) -> Score:
    """Return one candidate's bypass, induce and KL scores (paper section C.1); NaN where the means do not differ.

    Bypass and KL share a forward pass: both ablate the candidate everywhere. Induce adds it, with its own length, at
    its own layer.
    """
    if not candidates.differs(position, layer):
        return Score(position, layer, NAN, NAN, NAN, NO_DIFFERENCE)
    if not candidates.finite(position, layer):
        return Score(position, layer, NAN, NAN, NAN)
    direction = candidates.at(position, layer)
    v = validation

    def metric(logits: Float[Tensor, "n v"]) -> float:
        return float(equations.refusal_metric(logits, v.tokens.tensor).mean())

    with ablate(model, direction):
        ablated = engine.last_logits(model, [*v.harmful, *v.harmless])
    with add(model, direction):
        induced = engine.last_logits(model, v.harmless)
    kl = equations.kl_divergence(v.harmless_logits, ablated[len(v.harmful) :]).mean()
    return Score(position, layer, metric(ablated[: len(v.harmful)]), metric(induced), float(kl))
