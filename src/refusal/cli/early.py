"""What can be seen of a command's arguments before anything heavy is imported: paths that are not there, and names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any

from refusal.config import BUNDLED
from refusal.errors import BadInput, did_you_mean
from refusal.verdicts import read_judge

WRITTEN = ("output", "out", "figures")  # arguments that need not be there
SETS, JUDGES = ("prompts", "harmful", "harmless", "harmful_test", "evaluations"), ("by", "judges")


def checked(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with its arguments looked at first, so that a slip of the pen need not wait for torch."""

    @wraps(command)
    def call(*args: Any, **given: Any) -> None:
        check(signature(command).bind(*args, **given).arguments)
        command(*args, **given)

    return call


def check(arguments: Mapping[str, Any]) -> None:
    """Raise BadInput for a path to read that is not there or a misspelt model, BadSetting for a misspelt judge."""
    for name, value in arguments.items():
        if isinstance(value, Path):
            if name not in WRITTEN and not value.expanduser().exists():
                raise BadInput(f"There is no file or folder '{value}'. Check the path.")
        elif is_dataclass(value):
            check({field.name: getattr(value, field.name) for field in fields(value)})
        elif name == "model" and not arguments.get("server"):  # on a server it may have any name
            _check_model(value)
        elif name in JUDGES:
            for judge in value:
                read_judge(judge)
        elif name in SETS:
            _check_sets((value,) if isinstance(value, str) else value)


def _check_sets(names: Sequence[str]) -> None:
    if asked := [name for name in names if name not in ("", "auto")]:
        from refusal.prompts import check_prompts

        for name in asked:
            check_prompts(name)


def _check_model(name: str) -> None:
    """A Hub id is one name, or two with a slash between; anything that looks like a path has to be there."""
    if Path(name).expanduser().exists() or name == BUNDLED:
        return
    if near := did_you_mean(name, [BUNDLED], cutoff=0.8):
        raise BadInput(f"There is no model '{name}' here. {near}That is the bundled one.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadInput(f"There is no folder '{name}' with a model. Check the path.")
