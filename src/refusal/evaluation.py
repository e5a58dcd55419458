"""What a run measures on prompts that selection never saw: projections, and answers under every condition, judged."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from refusal.completions import KeptCompletions
from refusal.conditions import Condition
from refusal.config import RunConfig
from refusal.direction import Direction
from refusal.extraction import projections, refusal_scores, resid_norm
from refusal.generation import Completion, generate
from refusal.interventions import add
from refusal.judges import find_judges, judge
from refusal.judges.guards import HarmBench, LlamaGuard
from refusal.judges.read import read_completions
from refusal.judges.saved import judge_run
from refusal.model import ChatModel
from refusal.prompts import Prompt
from refusal.records import value_hash, write_json, write_rows
from refusal.study import Evaluation, Study
from refusal.vectors import Vectors, inputs_of
from refusal.weights import coverage


def project(study: Study, direction: Direction) -> None:
    """Measure the component along the direction of both test sets, layer by layer."""
    study.stages.enter("projections")
    path = study.run.folder / "projections.json"

    def body() -> None:
        rows = {name: projections(study.model, prompts, direction=direction) for name, prompts in study.tests.items()}
        classes = {
            name: {"mean": x.mean(0).tolist(), "sd": x.std(0, correction=0).tolist(), "n": len(x)}
            for name, x in rows.items()
        }
        facts = {
            "layers": list(range(study.model.n_layers)),
            "position": direction.position,
            "norm": direction.norm,
            "resid_norm": resid_norm(study.model, study.sample.harmless_test, layer=direction.layer),
        }
        write_json(path, {**facts, **classes})

    study.step("project", [study.base, study.chosen], [path], body)


def cover(study: Study, direction: Direction) -> None:
    """Record which tensors an edit of the weights reaches, and what they write along the direction before and after."""
    study.stages.enter("coverage")
    path = study.run.folder / "coverage.json"

    def body() -> None:
        write_json(path, coverage(study.model, direction).record())

    study.step("coverage", [study.base, study.chosen], [path], body)


def complete(study: Study, vectors: Vectors, *, edited: ChatModel | None = None) -> None:
    """Complete every evaluation set under each of its conditions: those of hooks, or that of `edited` weights."""
    listed = [
        (evaluation, condition)
        for evaluation in study.evaluations
        for condition in study.conditions(evaluation)
        if (condition.kind == "weights") == (edited is not None)
    ]
    study.stages.enter("answers" if edited is None else "edited weights", len(listed))
    for evaluation, condition in listed:
        _complete(study, vectors, evaluation, condition, edited or study.model)


def _complete(study: Study, vectors: Vectors, evaluation: Evaluation, condition: Condition, model: ChatModel) -> None:
    path = study.run.folder / "completions" / f"{evaluation.name}.{condition.name}.jsonl"
    inputs = [*inputs_of(study, condition), evaluation.record()]
    model, prompts = replace(model, system=evaluation.system), evaluation.prompts
    tokens = torch.tensor(study.run.record["refusal_tokens"]["ids"])

    def body() -> None:
        with vectors.around(model, condition, coefficient=study.coefficient(evaluation)):
            metrics = refusal_scores(model, prompts, tokens=tokens).tolist()
            _generate(study, model, prompts, path, value_hash(inputs), metrics)

    study.step(f"complete {path.stem}", inputs, [path], body)


def _generate(
    study: Study,
    model: ChatModel,
    prompts: Sequence[Prompt],
    path: Path,
    inputs: str,
    metrics: Sequence[float],
) -> None:
    """Generate and keep what comes, so that a killed run loses at most the batch it was in."""
    kept = KeptCompletions(path, inputs, extra=lambda index: {"refusal_metric": metrics[index]})
    with study.bar(path.stem, len(prompts), done=len(kept.known)) as advance:

        def report(new: dict[int, Completion]) -> None:
            kept.add(new)
            advance(len(new))

        generate(model, prompts, max_new_tokens=study.max_new_tokens, skip=kept.known, report=report)
    kept.finish()


def curve(study: Study, direction: Direction) -> None:
    """Count refusals and, where gradable, exact answers against the coefficient, with the random control."""
    config, path = study.config, study.run.folder / "coefficients.json"
    prompts = study.sample.harmless_test[: config.n_curve]
    files = curve_files(study.run.folder, config.coefficients)

    def body() -> None:
        # One call for all: every prompt under every coefficient and either direction, a row each.
        points = [(used, c) for used in (direction, direction.random(config.seed)) for c in config.coefficients]
        rows = [(used.vector, c) for used, c in points for _ in prompts]
        vectors, strengths = torch.stack([v for v, _ in rows]), torch.tensor([c for _, c in rows])

        def around(batch: list[int]) -> AbstractContextManager[None]:
            return add(study.model, vectors[batch], coefficient=strengths[batch], layer=direction.layer)

        with study.bar("Coefficient curve", len(rows)) as advance:
            completions = generate(
                study.model,
                [*prompts] * len(points),
                max_new_tokens=study.max_new_tokens,
                around=around,
                report=lambda new: advance(len(new)),
            )
        for i, file in enumerate(file for name in files for file in files[name]):
            part = completions[i * len(prompts) : (i + 1) * len(prompts)]
            write_rows(file, (completion.record() for completion in part))
        write_json(path, curve_record(study.run.folder, config.coefficients, grammar=study.grammar))

    if config.coefficients:
        study.stages.enter("coefficients")
        outputs = [path, *(file for name in files for file in files[name])]
        study.step("curve", [study.base, study.chosen], outputs, body)


def curve_files(folder: Path, coefficients: Sequence[float]) -> dict[str, list[Path]]:
    """Return where the answers behind every point of the curve are."""
    return {name: [folder / "curve" / f"{name}.{c:g}.jsonl" for c in coefficients] for name in ("direction", "random")}


def curve_record(folder: Path, coefficients: Sequence[float], *, grammar: bool) -> dict[str, Any]:
    """Judge the answers behind the curve: what `coefficients.json` holds."""

    def point(coefficient: float, completions: list[Completion]) -> dict[str, Any]:
        exact = {"exact": judge(completions, by="grammar").record("exact")} if grammar else {}
        return {"coefficient": coefficient, "refused": judge(completions).record("refused")} | exact

    answers = {name: [*map(read_completions, files)] for name, files in curve_files(folder, coefficients).items()}
    curves = {
        name: [point(c, part) for c, part in zip(coefficients, found, strict=True)] for name, found in answers.items()
    }
    return {"coefficients": list(coefficients), "n": len(answers["direction"][0])} | curves


def check_judges(config: RunConfig) -> None:
    """Make every judge of a run, and see whether its model can be had. Raises the judges' errors."""
    for one in find_judges(config.judges):
        if isinstance(one, LlamaGuard | HarmBench):
            one.check()


def judge_answers(study: Study) -> None:
    """Judge every completion by the run's judges, by the paper's substrings, and by the bundled language's grammar."""
    study.stages.enter("judges")
    asked = ("substring", *(("grammar",) if study.grammar else ()), *study.config.judges)
    judges = find_judges(tuple(dict.fromkeys(asked)))
    answers = sum(len(evaluation.prompts) * len(study.conditions(evaluation)) for evaluation in study.evaluations)
    with study.bar("Judging", answers * len(judges)) as advance:
        judge_run(study.run, judges, report=advance)
