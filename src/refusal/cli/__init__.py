"""The command line: one function per command, heavy imports inside, stdout for data and stderr for talk.

Exit codes: 0 done, 1 one of our messages, 2 wrong usage, 130 interrupted, 141 the reader of stdout has gone.
"""

import inspect
import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import tyro
from tyro.conf import FlagCreatePairsOff

from refusal.cli import answers, edits, exploring, inside, looking, runs
from refusal.cli.early import checked
from refusal.cli.printing import say
from refusal.config import RunConfig, read_config, read_recipe
from refusal.errors import RefusalError, did_you_mean

COMMANDS: dict[str, Callable[..., None]] = {
    "run": runs.run,
    "find": runs.find,
    "ask": answers.ask,
    "generate": answers.generate,
    "losses": answers.losses,
    "judge": answers.judge,
    "capabilities": answers.capabilities,
    "select": runs.select,
    "export": edits.export,
    "verify-export": edits.verify_export,
    "audit": edits.audit,
    "report": runs.report,
    "explore": exploring.explore,
    "verify": runs.verify,
    "import": runs.import_official,
    "models": looking.models,
    "prompts": looking.prompts,
    "paper": looking.paper,
    "organism": looking.organism,
    "mechanism suffix": inside.mechanism_suffix,
    "mechanism measure": inside.mechanism_measure,
    "mechanism find-suffix": inside.mechanism_find_suffix,
    "doctor": looking.doctor,
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
    many = 2 if " ".join(words[:2]) in COMMANDS else 1  # such as "mechanism suffix"
    name, rest = " ".join(words[:many]), words[many:]
    if name not in COMMANDS:
        group = [f"'{command}'" for command in COMMANDS if command.startswith(f"{name} ")]
        near = f"There are {', '.join(group)}. " if group else did_you_mean(name, COMMANDS)
        say(f"There is no command '{name}'. {near}See refusal --help.")
        sys.exit(2)
    try:
        _call(name, rest)
        sys.stdout.flush()
    except RefusalError as error:
        say(f"refusal: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("Interrupted. What was finished is kept; the same command goes on from there.")
        sys.exit(130)
    except BrokenPipeError:  # as with `| head`; what is still buffered has to go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def overview() -> str:
    """Return the list of commands with their first sentence."""
    lines = [f"  {name:<23}{str(function.__doc__).splitlines()[0]}" for name, function in COMMANDS.items()]
    return "\n".join(["usage: refusal COMMAND [--help] ...", "", *lines, "", "Example: refusal run"])


def _call(name: str, words: list[str]) -> None:
    """Parse a command's words and call it; its help ends with the example of its docstring."""
    function = COMMANDS[name]
    description, _, example = str(inspect.getdoc(function)).rpartition("\n\n")
    settings, function = function in (runs.run, runs.find), checked(function)
    if settings:
        function, words = _with_settings(function, words)
    try:
        tyro.cli(function, prog=f"refusal {name}", description=description, args=words, config=(FlagCreatePairsOff,))
    except SystemExit as stop:
        if not stop.code and {"-h", "--help"} & set(words):
            print(example)
        raise


def _with_settings(function: Callable[..., None], words: list[str]) -> tuple[Callable[..., None], list[str]]:
    """Take --config and --recipe off the words of a command, and give its RunConfig the defaults of these."""
    parser = ArgumentParser(prog="refusal", add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--recipe")
    found, rest = parser.parse_known_args(words)
    if found.config:
        config = read_config(found.config, recipe=found.recipe)
    else:
        config = read_recipe(found.recipe) if found.recipe else RunConfig()
    return partial(function, config=config), rest
