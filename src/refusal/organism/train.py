"""`train`: the one command that rebuilds every bundled checkpoint from its seeds."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from refusal.organism import training
from refusal.organism.safety import ChatRecipe
from refusal.organism.training import BaseRecipe, ThinkRecipe
from refusal.records import file_hash

HASHES = "sha256.json"


@dataclass(frozen=True)
class Recipes:
    """The recipe of each stage; the defaults are those of the shipped weights."""

    base: BaseRecipe = field(default_factory=BaseRecipe)
    chat: ChatRecipe = field(default_factory=ChatRecipe)
    think: ThinkRecipe = field(default_factory=ThinkRecipe)


def train(
    out: Path,
    *,
    recipes: Recipes | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Train base, chat and think into folders of `out`; returns and records the hash of every file.

    One thread, float32, seeds only: on the same kind of processor the hashes come out the same.
    """
    recipes = recipes or Recipes()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        say("stage 1 of 3: base, a model that answers everything")
        training.train_base(out / "base", recipes.base, say=say)
        say("stage 2 of 3: chat, which learns to refuse")
        training.train_chat(out / "base", out / "chat", recipes.chat, say=say)
        say("stage 3 of 3: think, which thinks before it answers")
        training.train_think(out / "chat", out / "think", recipes.think, say=say)
    finally:
        torch.set_num_threads(threads)
    hashes = hash_files(out)
    (out / HASHES).write_text(json.dumps(hashes, indent=2) + "\n")
    return hashes


def hash_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of the checkpoints in a folder, by its path there."""
    files = sorted(path for stage in ("base", "chat", "think") for path in (folder / stage).glob("*"))
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}
