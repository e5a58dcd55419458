"""The command line: one function per command, heavy imports inside, stdout for data and stderr for talk.

Exit codes: 0 done, 1 one of our messages, 2 wrong usage, 130 interrupted.
"""

import json as jsonlib
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from refusal.config import RunConfig, read_config
from refusal.errors import BadInput, RefusalError

Config = Annotated[RunConfig, arg(name="")]
Output = Annotated[Path, arg(aliases=["-o"])]


def run(config: Config, json: bool = False) -> None:
    """Do the paper end to end on a chat model (the bundled one by default), and write a run folder with a report.

    A stopped run goes on where it was. Settings can also stand in a TOML file: --config FILE; flags win over it.
    Example: refusal run --n-test 100
    """
    from refusal import pipeline
    from refusal.report import write_report

    _quiet()
    folder = pipeline.run(config)
    report = write_report(folder)
    results = jsonlib.loads((folder / "results.json").read_text(encoding="utf-8"))
    _print(results, json, lambda: _result_table(results))
    _say(f"Report: {report}")


def find(config: Config, output: Output = Path("direction.safetensors")) -> None:
    """Extract the candidates and select the direction only; `refusal run` with the same settings goes on from there.

    Example: refusal find organism -o direction.safetensors
    """
    from refusal import pipeline

    _quiet()
    direction = pipeline.find(config)
    direction.save(output)
    print(jsonlib.dumps({"position": direction.position, "layer": direction.layer, "norm": direction.norm}))


def ask(
    model: Positional[str], prompt: Positional[str], direction: Path, coefficient: float = 1.0, json: bool = False
) -> None:
    """Print a model's answer to one prompt: plain, with the direction ablated, and with it added.

    Example: refusal ask organism "Explain how to brew a red jam." --direction direction.safetensors
    """
    from refusal import interventions
    from refusal.direction import Direction
    from refusal.generation import generate
    from refusal.model import load_model

    _quiet()
    chat, found, answers = load_model(model), Direction.load(direction), {}
    answers["plain"] = generate(chat, [prompt])[0].response
    with interventions.ablate(chat, found):
        answers["ablated"] = generate(chat, [prompt])[0].response
    with interventions.add(chat, found, coefficient=coefficient):
        answers["added"] = generate(chat, [prompt])[0].response
    _print(answers, json, lambda: _pairs(answers))


def generate(
    model: Positional[str],
    prompts: Positional[str],
    output: Output,
    split: Literal["train", "val", "test"] = "test",
    ablate: Path | None = None,
    add: Path | None = None,
    coefficient: float = 1.0,
) -> None:
    """Complete every prompt of a set and write JSON lines, with a saved direction ablated or added if asked.

    Example: refusal generate organism harmful -o completions.jsonl --ablate direction.safetensors
    """
    from refusal.commands import complete_set

    _quiet()
    complete_set(model, prompts, output, split=split, ablated=ablate, added=add, coefficient=coefficient)


def judge(path: Positional[Path], by: str = "substring", json: bool = False) -> None:
    """Judge saved completions: a run folder, our JSON lines, or the official code's JSON. No model is loaded.

    Example: refusal judge completions.jsonl --by substring --json
    """
    from refusal.commands import judge_saved

    rates = judge_saved(path, by=by)
    records = {name: rate.record("refused" if by == "substring" else by) for name, rate in rates.items()}
    shown: Any = records if path.is_dir() else next(iter(records.values()))
    _print(shown, json, lambda: _pairs({name: str(rate) for name, rate in rates.items()}))


def select(
    scores: Path,
    layers: int,
    max_kl: float = 0.1,
    min_induce: float = 0.0,
    prune_layers: float = 0.2,
    json: bool = False,
) -> None:
    """Choose again from recorded scores: our selection.jsonl, or the official direction_evaluations.json.

    Example: refusal select --scores selection.jsonl --layers 10 --max-kl 0.05
    """
    from refusal.rule import Limits, choose, read_scores

    limits = Limits(max_kl, min_induce, prune_layers)
    summary = choose(read_scores(scores), layers, limits=limits).summary()
    _print(summary, json, lambda: _pairs(summary))


def report(folder: Positional[Path]) -> None:
    """Write report.html of a run folder again from its records.

    Example: refusal report runs/organism/1a2b3c4d
    """
    from refusal.report import write_report

    print(write_report(folder))


def verify(folder: Positional[Path], json: bool = False) -> None:
    """Compute every number of a run's results again from its records; exit 1 on any difference.

    Example: refusal verify runs/organism/1a2b3c4d
    """
    from refusal.commands import check_run

    checked = check_run(folder)
    _print(checked, json, lambda: _pairs(checked))


def import_official(run: Positional[Path], out: Path) -> None:
    """Turn a run folder of the paper's own repository into one of ours.

    Example: refusal import pipeline/runs/gemma-2b-it --out runs/gemma-2b-it
    """
    from refusal.official import import_run
    from refusal.report import write_report

    print(write_report(import_run(run, out)))


def models(json: bool = False) -> None:
    """List the model families that are covered, and where each writes to its residual stream.

    Example: refusal models --json
    """
    from refusal.commands import model_families

    rows = model_families()
    _print(rows, json, lambda: _table(rows))


def prompts(json: bool = False) -> None:
    """List the prompt sets that can be named, with counts, licence and whether they are here already.

    Example: refusal prompts --json
    """
    from refusal.prompts import list_prompts

    rows = [listing.record() for listing in list_prompts()]
    _print(rows, json, lambda: _table(rows))


def organism(action: Positional[Literal["train"]], out: Path) -> None:
    """Train the bundled chat model again from its seeds: base, chat and thinking checkpoints, under half an hour.

    Example: refusal organism train --out organism
    """
    from refusal.organism.train import train

    assert action == "train"
    train(out, say=_say)


def doctor(json: bool = False) -> None:
    """Say what will fail before it fails: versions, devices, disk, cache.

    Example: refusal doctor
    """
    from refusal.commands import examine

    facts = examine()
    _print(facts, json, lambda: _pairs(facts))


COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "find": find,
    "ask": ask,
    "generate": generate,
    "judge": judge,
    "select": select,
    "report": report,
    "verify": verify,
    "import": import_official,
    "models": models,
    "prompts": prompts,
    "organism": organism,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. Deliberate errors print their message and exit 1; anything else keeps its traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return
    if words[0] == "--version":
        from refusal import __version__

        print(__version__)
        return
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        _say(f"There is no command '{name}'." + (f" Did you mean '{near[0]}'?" if near else " See refusal --help."))
        sys.exit(2)
    try:
        tyro.cli(_with_settings(COMMANDS[name], rest), prog=f"refusal {name}", args=rest, config=(FlagCreatePairsOff,))
    except RefusalError as error:
        _say(f"refusal: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        _say("Interrupted. What was finished is kept; the same command goes on from there.")
        sys.exit(130)


def overview() -> str:
    """Return the list of commands with their first sentence."""
    lines = [f"  {name:<10}{str(function.__doc__).splitlines()[0]}" for name, function in COMMANDS.items()]
    return "\n".join(["usage: refusal COMMAND [--help] ...", "", *lines, "", "Example: refusal run"])


def _with_settings(function: Callable[..., None], words: list[str]) -> Callable[..., None]:
    """Give a command that takes a RunConfig its defaults, from a TOML file where --config names one."""
    if function not in (run, find):
        return function
    config = RunConfig()
    if "--config" in words:
        place = words.index("--config")
        if place + 1 == len(words):
            raise BadInput("--config needs a file. Give a TOML file with the keys of docs/config.md.")
        config = read_config(Path(words[place + 1]))
        del words[place : place + 2]
    return partial(function, config=config)


def _print(value: Any, json: bool, human: Callable[[], Any]) -> None:
    if json:
        print(jsonlib.dumps(value, allow_nan=False))
    else:
        from rich.console import Console

        Console().print(human())


def _pairs(values: Mapping[str, Any]) -> Any:
    return _table([{"": name, "value": value} for name, value in values.items()], header=False)


def _table(rows: Sequence[Mapping[str, Any]], *, header: bool = True) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(*(rows[0] if rows else ()), show_header=header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))  # Text: model output is never markup
    return table


def _result_table(results: Mapping[str, Any]) -> Any:
    from refusal.results import table_rows

    return _table(table_rows(results))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _quiet() -> None:
    """Keep transformers' own progress bars out of the way of ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
