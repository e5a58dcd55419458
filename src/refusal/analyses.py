"""What is measured inside a model once its run has results: every analysis a resumable step of the same folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from transformers import AutoConfig

from refusal.config import BUNDLED, RunConfig
from refusal.direction import Direction
from refusal.errors import (
    BadInput,
    BadRunFolder,
    BadSetting,
    NoDirection,
    TooFewPrompts,
    Unavailable,
    UnsupportedModel,
)
from refusal.loading import load_part
from refusal.mechanism import (
    Subject,
    bundled_suffix,
    measure_agreement,
    measure_base_and_chat,
    measure_behaviours,
    measure_candidate_cosines,
    measure_components,
    measure_first_tokens,
    measure_layers,
    measure_metrics,
    measure_minimal,
    measure_pca,
    measure_projections,
    measure_separability,
    measure_stream,
    measure_trace,
    open_base,
    read_suffixes,
    study_suffix,
    transfer_of,
    what_to_ask,
)
from refusal.organism import checkpoint
from refusal.pipeline import filter_by_metric
from refusal.records import Json, file_hash
from refusal.study import Study, open_study

FOLDER = "mechanism"
# With this model, or with what was given for it.
NOT_POSSIBLE = (BadInput, NoDirection, TooFewPrompts, Unavailable, UnsupportedModel)


@runtime_checkable
class Found(Protocol):
    """What an analysis returns."""

    def record(self) -> dict[str, Json]:
        """Return plain values."""
        ...

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        ...


Analysis = Callable[[Subject], Found]


def _suffix(subject: Subject, number: int = 0) -> Found:
    if not subject.suffixes:
        raise BadSetting("No suffix was given. Give --suffixes a text, or a file with one a line.")
    return study_suffix(
        subject.model,
        subject.direction,
        harmful=subject.tests["harmful"],
        harmless=subject.tests["harmless"],
        suffix=subject.suffixes[number],
        seed=subject.seed,
        max_new_tokens=subject.max_new_tokens,
    )


def _minimal(subject: Subject) -> Found:
    sets = {name: [*subject.val[name], *subject.train[name]] for name in subject.val}
    return measure_minimal(
        subject.model,
        subject.direction,
        found_on=sets,
        prompts=subject.tests["harmful"],
        tokens=subject.tokens,
        seed=subject.seed,
        max_new_tokens=subject.max_new_tokens,
    )


# Name → analysis: the name of its file in the run folder, of its section in the report, and of its command.
ANALYSES: dict[str, Analysis] = {
    "suffix": _suffix,
    "first-tokens": lambda s: measure_first_tokens(
        s.model, s.direction, prompts=s.tests, tokens=s.tokens, coefficient=s.coefficient, seed=s.seed
    ),
    "metrics": lambda s: measure_metrics(
        s.model, s.direction, prompts=s.tests, tokens=s.tokens, coefficient=s.coefficient, seed=s.seed
    ),
    "stream": lambda s: measure_stream(s.model, s.direction, prompts=s.tests, coefficient=s.coefficient, seed=s.seed),
    "behaviours": lambda s: measure_behaviours(
        s.model,
        s.direction,
        kinds=what_to_ask(s.model, harmful=s.tests["harmful"], harmless=s.tests["harmless"]),
        max_new_tokens=s.max_new_tokens,
        seed=s.seed,
    ),
    "base-and-chat": lambda s: measure_base_and_chat(
        s.model, s.direction, base=open_base(s.base, s.model), prompts=s.tests, seed=s.seed
    ),
    "transfer": transfer_of,
    "projections": lambda s: measure_projections(s.model, s.direction, prompts=s.tests, seed=s.seed),
    "separability": lambda s: measure_separability(
        s.model,
        s.direction,
        prompts=s.tests,
        candidates=s.candidates,
        scores=s.scores,
        val=s.val,
        tokens=s.tokens,
        seed=s.seed,
    ),
    "pca": lambda s: measure_pca(s.model, s.direction, prompts=s.tests, seed=s.seed),
    "candidate-cosines": lambda s: measure_candidate_cosines(
        s.model, s.direction, candidates=s.candidates, seed=s.seed
    ),
    "agreement": lambda s: measure_agreement(
        s.model, s.direction, prompts=s.train, candidates=s.candidates, seed=s.seed
    ),
    "components": lambda s: measure_components(s.model, s.direction, prompts=s.tests, seed=s.seed),
    "trace": lambda s: measure_trace(s.model, s.direction, prompts=s.tests, seed=s.seed),
    "layers": lambda s: measure_layers(s.model, s.direction, prompts=s.tests["harmful"], tokens=s.tokens, seed=s.seed),
    "minimal": _minimal,
}


def explain(config: RunConfig) -> Path:
    """Do every analysis in the folder of a finished run and return it; one that cannot be done is noted with why."""
    with open_study(config) as study:
        study.stages.plan("prompts", "analyses")
        subject = _subject(study)
        listed, missing = _listed(subject), {}
        _forget_others(study, listed)
        study.stages.enter("analyses", len(listed))
        for name, analyse in listed.items():
            if reason := _analyse(study, subject, name, analyse):
                missing[name] = reason
        study.run.note(not_explained=missing)
    return study.run.folder


def check_settings(config: RunConfig) -> None:
    """Raise at once what an analysis would meet only after the run: a suffix file or a base model that is not there."""
    suffixes_of(config)
    if config.base is not None:
        load_part(AutoConfig, config.base, {})


def suffixes_of(config: RunConfig) -> tuple[str, ...]:
    """Return the suffixes that a config names; the bundled model has one of its own."""
    suffixes = config.suffixes or ((bundled_suffix()["suffix"],) if config.model == BUNDLED else ())
    return read_suffixes(suffixes) if suffixes else ()


def base_of(config: RunConfig) -> str | None:
    """Return the base model that a config names; the bundled model has its own."""
    return config.base or (str(checkpoint("base")) if config.model == BUNDLED else None)


def _listed(subject: Subject) -> Mapping[str, Analysis]:
    further = {
        f"suffix-{number + 1}": lambda subject, number=number: _suffix(subject, number)
        for number in range(1, len(subject.suffixes))
    }
    return ANALYSES | further


def _analyse(study: Study, subject: Subject, name: str, analyse: Analysis) -> str | None:
    """Do one analysis, unless it is there already on the same inputs; return why it cannot be done."""
    path = study.run.folder / FOLDER / f"{name}.json"
    config = study.config
    inputs = [study.base, study.chosen, name, config.n_mechanism, subject.suffixes, subject.base]
    try:
        study.step(f"{FOLDER} {name}", inputs, [path], lambda: analyse(subject).save(path))
    except BadRunFolder:
        raise
    except NOT_POSSIBLE as error:
        _forget(study, f"{FOLDER} {name}")
        study.stages.skip()
        return str(error)
    return None


def _forget_others(study: Study, listed: Mapping[str, Analysis]) -> None:
    """Remove what was found of a suffix that is not asked for any more."""
    steps = [f"{FOLDER} {name}" for name in listed]
    for step in [*study.run.record["steps"]]:
        if step.startswith(f"{FOLDER} suffix-") and step not in steps:
            _forget(study, step)


def _forget(study: Study, step: str) -> None:
    """Remove what a step found on other inputs, which would pass for what these give."""
    steps: Any = study.run.record["steps"]
    for name, digest in steps.pop(step, {"outputs": {}})["outputs"].items():
        path = study.run.folder / name
        if path.exists() and file_hash(path) == digest:  # else it is somebody's own
            path.unlink()
    study.run.note(steps=steps)


def _subject(study: Study) -> Subject:
    config, n = study.config, study.config.n_mechanism
    tokens, kept = filter_by_metric(study)
    # All of the validation prompts: the candidates' scores are of these.
    parts: Any = {
        split: {name: kept[f"{name}_{split}"][:most] for name in ("harmful", "harmless")}
        for split, most in (("train", n), ("val", None))
    }
    return Subject(
        model=study.model,
        direction=Direction.load(study.run.folder / "direction.safetensors"),
        tokens=tokens,
        **parts,
        tests={name: prompts[:n] for name, prompts in study.tests.items()},
        limits=config.limits,
        suffixes=suffixes_of(config),
        base=base_of(config),
        coefficient=config.harmless_coefficient,
        seed=config.seed,
        max_new_tokens=study.max_new_tokens,
        run=study.run.folder,
    )
