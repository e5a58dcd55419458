"""The paper's steps in order, on one screen."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refusal import costs, draws, engine, evaluation, layerwise
from refusal.config import RunConfig
from refusal.direction import Candidates, Direction
from refusal.errors import Unavailable
from refusal.extraction import Logits, filter_prompts, mean_difference
from refusal.prompts import Prompt
from refusal.records import Journal, file_hash, value_hash, write_json
from refusal.refusal_tokens import RefusalTokens, find_refusal_tokens
from refusal.results import summarize
from refusal.rule import Score, choose, read_score
from refusal.study import Study, open_study
from refusal.sweep import prepare, sweep
from refusal.vectors import find_vectors
from refusal.weights import orthogonalize

FINDING = ("prompts", "class means", "candidates")  # the stages that are shown
MEASURING = ("controls", "other draws", "projections", "answers", "coefficients", "losses", "KL", "capabilities")
STAGES = ("data", *FINDING, *MEASURING, "coverage", "edited weights", "judges")


def run(config: RunConfig) -> Path:
    """Do the paper end to end and return the run folder; a stopped run goes on where it was.

    Raises the errors of every step (see `refusal.errors`); whatever was finished by then is kept.
    """
    with open_study(config) as study:
        study.stages.plan(*STAGES)
        study.run.note(status="running")
        study.stages.enter("data")  # what is missing must not stop the run after hours
        evaluation.check_judges(config)
        corpora = costs.fetch(study)
        tokens, kept = filter_by_metric(study)
        candidates = extract(study, kept)
        direction = select(study, candidates, kept, tokens)
        if study.layered:
            raise Unavailable(
                f"The direction is chosen: {study.run.folder / 'direction.safetensors'}. Completions and the rest of a "
                "run need the whole model in memory, which --stream-layers is there to avoid. Give the same command "
                "without it on a machine that holds the model, and the run goes on from here; or export the "
                "checkpoint with the direction (refusal export), and serve that."
            )
        vectors = find_vectors(study, direction, candidates, kept)
        draws.redraw(study, tokens, direction)
        evaluation.project(study, direction)
        evaluation.complete(study, vectors)
        evaluation.curve(study, direction)
        costs.losses(study, vectors, corpora)
        costs.divergences(study, vectors)
        costs.capabilities(study, vectors)
        evaluation.cover(study, direction)
        # The edit is made in place, so it comes after everything that needs the model as it is.
        evaluation.complete(study, vectors, edited=orthogonalize(study.model, direction, in_place=True))
        study.release()
        evaluation.judge_answers(study)
        conclude(study)
    return study.run.folder


def find(config: RunConfig) -> Direction:
    """Do the first three steps only and return the chosen direction; `run` goes on from there."""
    with open_study(config) as study:
        study.stages.plan(*FINDING)
        tokens, kept = filter_by_metric(study)
        return select(study, extract(study, kept), kept, tokens)


def filter_by_metric(study: Study) -> tuple[RefusalTokens, dict[str, tuple[Prompt, ...]]]:
    """Step 1: find the refusal tokens, and keep the train and validation prompts that the model treats as expected."""
    study.stages.enter("prompts")
    s, config = study.sample, study.config
    parts = s.for_selection()
    how: Any = {"logits": _logits(study, [prompt for prompts in parts.values() for prompt in prompts])}
    tokens = find_refusal_tokens(study.model, s.harmful_train, s.harmless_train, given=config.refusal_tokens, **how)
    kept = {
        name: filter_prompts(study.model, prompts, tokens=tokens.tensor, refused=name.startswith("harmful"), **how)
        for name, prompts in parts.items()
    }
    counts = {name: {"before": len(parts[name]), "after": len(kept[name])} for name in parts}
    study.run.note(refusal_tokens=tokens.record(), filtering=counts)
    return tokens, kept


def extract(study: Study, kept: dict[str, tuple[Prompt, ...]]) -> Candidates:
    """Step 2: the class means at every layer and post-instruction position."""
    study.stages.enter("class means")
    path = study.run.folder / "candidates.safetensors"

    def body() -> None:
        sets = kept["harmful_train"], kept["harmless_train"]
        if study.layered:
            with study.bar("Class means, block by block", study.model.n_layers) as advance:
                layerwise.mean_difference(study.layered, *sets, report=advance).save(path)
        else:
            mean_difference(study.model, *sets).save(path)

    study.step("extract", [study.base], [path], body)
    return Candidates.load(path)


def select(
    study: Study, candidates: Candidates, kept: dict[str, tuple[Prompt, ...]], tokens: RefusalTokens
) -> Direction:
    """Step 3: score every candidate and choose."""
    study.stages.enter("candidates")
    folder = study.run.folder
    scores, chosen = folder / "selection.jsonl", folder / "direction.safetensors"
    inputs = [study.base, file_hash(folder / "candidates.safetensors"), tokens.ids]

    def body() -> None:
        sets = kept["harmful_val"], kept["harmless_val"]
        journal = Journal(scores, value_hash(inputs))
        if study.layered:
            scored = _score_layered(study, candidates, sets, tokens)
        else:
            scored = _score(study, candidates, sets, tokens, journal)
        choice = choose(scored, candidates.n_layers, limits=study.config.limits)
        journal.finish(asdict(score) for score in choice.scores)
        best = choice.chosen
        candidates.at(best.position, best.layer).save(chosen)

    study.step("select", inputs, [scores, chosen], body)
    return Direction.load(chosen)


def conclude(study: Study) -> None:
    """The last step: every number that a reader may quote, from the records."""
    folder = study.run.folder
    write_json(folder / "results.json", summarize(folder))
    study.run.note(status="finished")


ValidationSets = tuple[Sequence[Prompt], Sequence[Prompt]]  # harmful, harmless


def _score(
    study: Study, candidates: Candidates, sets: ValidationSets, tokens: RefusalTokens, journal: Journal
) -> list[Score]:
    """Score with a journal: a killed run loses the layer it was at, a fast sweep all that came after `induce`."""
    validation = prepare(study.model, *sets, tokens=tokens)
    study.run.note(baseline=validation.baseline, engine=validation.shortcuts(study.model))
    known = {index: read_score(row) for index, row in journal.rows.items()}
    total = len(candidates.positions) * candidates.n_layers
    seen = set(known)
    with study.bar("Scoring candidates", total, done=len(known)) as advance:

        def report(index: int, score: Score) -> None:
            journal.append([{"index": index, **asdict(score)}])
            advance(index not in seen)
            seen.add(index)

        found = sweep(
            study.model,
            candidates,
            validation=validation,
            how=study.config.sweep,
            limits=study.config.limits,
            skip=known,
            report=report,
        )
        advance(total - len(seen))  # a fast sweep does not tell of candidates without a difference
    return found


def _score_layered(study: Study, candidates: Candidates, sets: ValidationSets, tokens: RefusalTokens) -> list[Score]:
    """Score in one pass over the blocks; a killed run begins it again, because scores come only at its end."""
    assert study.layered
    gib = study.config.stream_memory
    with study.bar("Scoring candidates, block by block", study.model.n_layers) as advance:
        swept = layerwise.sweep(
            study.layered,
            candidates,
            *sets,
            tokens=tokens,
            memory=None if gib is None else int(gib * 2**30),
            folder=study.run.folder,
            report=advance,
        )
    study.run.note(baseline=swept.baseline, engine=swept.notes)
    return swept.scores


def _logits(study: Study, prompts: Sequence[Prompt]) -> Logits:
    """Return what gives next-token logits; where blocks are streamed, that of one pass over all these prompts."""
    if study.layered is None:
        return engine.last_logits
    with study.bar("Filtering prompts, block by block", study.model.n_layers) as advance:
        return layerwise.remembered(study.layered, prompts, report=advance)
