"""What the commands of `refusal mechanism` do: study a suffix or search for one, and measure any analysis."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

from refusal.analyses import ANALYSES, NOT_POSSIBLE, Found, base_of, suffixes_of
from refusal.architectures import read_architecture
from refusal.config import BUNDLED, RunConfig
from refusal.errors import BadSetting, did_you_mean
from refusal.interventions import for_model
from refusal.mechanism import (
    PURPOSE,
    Search,
    Subject,
    SuffixStudy,
    ask_first,
    bundled_suffix,
    find_suffix,
    read_suffixes,
    study_path,
    study_suffix,
)
from refusal.model import ChatModel, load_model
from refusal.prompts import Split
from refusal.records import Json, Run, write_json
from refusal.refusal_tokens import find_refusal_tokens
from refusal.report import write_report
from refusal.study import load_contrast
from refusal.weights import load_direction

TOKEN_PROMPTS = 128  # of each kind, from which the refusal tokens are proposed


def study_suffixes(
    model: str,
    direction: Path,
    suffixes: Sequence[str],
    *,
    harmful: str,
    harmless: str,
    split: Split,
    n: int,
    heads: int,
    seed: int,
    max_new_tokens: int | None,
    run: Path | None,
    architecture: Path | None,
) -> list[SuffixStudy]:
    """Study suffixes one by one, and keep them in a run folder if asked; the bundled model has one of its own."""
    if run is not None:
        Run.read(run)  # no run folder is made here
    if not suffixes and model != BUNDLED:
        raise BadSetting("There is no suffix to study. Give --suffix a text, or a file with one a line.")
    _at_least_one(n)
    given = read_suffixes(suffixes) if suffixes else (bundled_suffix()["suffix"],)
    chat, used, found = _open(model, architecture), load_direction(direction), []
    sets = load_contrast(RunConfig(model=model, harmful=harmful, harmless=harmless))
    classes: Any = {name: one[split][:n] for name, one in zip(("harmful", "harmless"), sets, strict=True)}
    places = iter(()) if run is None else _places(run)
    with _steps() as say:
        for suffix in given:
            asked: Any = {"suffix": suffix, "heads": heads, "seed": seed, "max_new_tokens": max_new_tokens}
            found.append(study_suffix(chat, used, **classes, **asked, report=say))
            if run is not None:
                found[-1].save(next(places))
    if run is not None and (run / "report.html").exists():
        write_report(run)
    return found


def measure_inside(
    names: Sequence[str],
    model: str,
    direction: Path,
    *,
    harmful: str,
    harmless: str,
    n: int,
    suffixes: Sequence[str],
    base: str | None,
    seed: int,
    max_new_tokens: int | None,
    out: Path | None,
    architecture: Path | None,
) -> dict[str, Found]:
    """Do some analyses of one direction, outside a run; kept as `out`/<name>.json if asked.

    Of all of them, when none is named, those that cannot be done are left out, and stderr says why.
    """
    unknown = [name for name in names if name not in ANALYSES]
    if unknown:
        near = did_you_mean(unknown[0], ANALYSES)
        raise BadSetting(f"There is no analysis '{unknown[0]}'. {near}Give some of {', '.join(ANALYSES)}.")
    _at_least_one(n)
    used, chat = load_direction(direction), _open(model, architecture)
    for_model(used.vector, chat)  # another model's would fit none of them
    config = RunConfig(model=model, harmful=harmful, harmless=harmless, suffixes=tuple(suffixes), base=base)
    sets = dict(zip(("harmful", "harmless"), load_contrast(config), strict=True))
    parts: Any = {split: {name: one[split][:n] for name, one in sets.items()} for split in ("train", "val")}
    subject = Subject(
        model=chat,
        direction=used,
        tokens=find_refusal_tokens(chat, *(parts["train"][name] for name in sets)),
        **parts,
        tests={name: one.test[:n] for name, one in sets.items()},
        suffixes=suffixes_of(config),
        base=base_of(config),
        seed=seed,
        max_new_tokens=max_new_tokens,
    )
    found, missing = {}, {}
    with _steps() as say:
        for name in names or ANALYSES:
            say(name)
            try:
                found[name] = ANALYSES[name](subject)
            except NOT_POSSIBLE as error:
                if name in names:
                    raise
                missing[name] = str(error)
                continue
            if out is not None:
                found[name].save(out / f"{name}.json")
    for name, reason in missing.items():
        Console(stderr=True).print(f"Not measured: {name}. {reason}", markup=False, highlight=False)
    return found


def search_suffix(
    model: str,
    output: Path,
    *,
    harmful: str,
    harmless: str,
    n: int,
    length: int,
    steps: int,
    candidates: int,
    top_k: int,
    seed: int,
    acknowledge: bool,
    architecture: Path | None,
) -> dict[str, Json]:
    """Search for a suffix on the first train prompts, write its record, and return it."""
    settings = Search(length, steps, candidates, top_k, seed)
    _at_least_one(n)
    ask_first(model, acknowledge=acknowledge)
    if model != BUNDLED:
        Console(stderr=True).print(PURPOSE.format(model=model), markup=False, highlight=False)
    chat = _open(model, architecture)
    sets = load_contrast(RunConfig(model=model, harmful=harmful, harmless=harmless))
    tokens = find_refusal_tokens(chat, sets[0].train[:TOKEN_PROMPTS], sets[1].train[:TOKEN_PROMPTS])
    with _steps() as say:
        found = find_suffix(
            chat,
            sets[0].train[:n],
            tokens=tokens.tensor,
            settings=settings,
            acknowledge=acknowledge,
            report=lambda lowest: say(f"lowest mean log-odds of refusing: {lowest:.2f}"),
        )
    told = {**found.record(), "prompts": sets[0].name, "refusal_tokens": tokens.record()}
    write_json(output, told)
    return told


def _places(run: Path) -> Iterator[Path]:
    """Yield where a run folder keeps studies beside those that are its own, which it would not go on from otherwise."""
    steps: Any = Run.read(run).record["steps"]
    own = {run / name for step in steps.values() for name in step["outputs"]}
    return (path for path in (study_path(run, number) for number in count()) if path not in own)


def _at_least_one(n: int) -> None:
    if n < 1:
        raise BadSetting(f"n is {n}: give at least 1 prompt.")


def _open(model: str, architecture: Path | None) -> ChatModel:
    return load_model(model, architecture=None if architecture is None else read_architecture(architecture))


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Show on stderr what is being done; yields the function that is told."""
    with Console(stderr=True).status("") as status:
        yield lambda what: status.update(what)
