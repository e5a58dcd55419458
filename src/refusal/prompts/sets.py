"""Prompt and PromptSet: frozen values that know where they come from."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from refusal import display

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHOWN = 4  # prompts in a notebook


@dataclass(frozen=True)
class Prompt:
    """One instruction as the user would type it, and the category its set gives it, if any."""

    instruction: str
    category: str | None = None


def prompts_sha256(prompts: Iterable[Prompt]) -> str:
    """Hash the instructions in order: SHA-256 of `json.dumps` of the list, with default separators."""
    return hashlib.sha256(json.dumps([prompt.instruction for prompt in prompts]).encode()).hexdigest()


@dataclass(frozen=True)
class PromptSet:
    """Prompts in up to three splits (an absent one is empty), with their origin and licence.

    `notes` says what was done on the way in: column read, blanks and duplicates dropped, seed and shares of
    the split, checksum of the file.
    """

    name: str
    train: tuple[Prompt, ...] = ()
    val: tuple[Prompt, ...] = ()
    test: tuple[Prompt, ...] = ()
    source: str = ""
    licence: str = "see source"
    notes: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        counts = ", ".join(f"{split}={n}" for split, n in self.counts.items() if n)
        return f"PromptSet({self.name!r}, {counts}, source={self.source!r})"

    def _repr_html_(self) -> str:
        filled: list[Split] = [split for split in SPLITS if self[split]]
        first = filled[0] if filled else SPLITS[0]
        rows = [{"prompt": prompt.instruction, "category": prompt.category} for prompt in self[first][:SHOWN]]
        facts = {**self.counts, "source": self.source, "licence": self.licence}
        return display.card(self.name, facts, display.folded(f"first {first} prompts", display.table(rows)))

    def __getitem__(self, split: Split) -> tuple[Prompt, ...]:
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    @property
    def counts(self) -> dict[str, int]:
        """The number of prompts in each split."""
        return {split: len(self[split]) for split in SPLITS}

    def sha256(self, split: Split) -> str:
        """Hash one split; see `prompts_sha256`."""
        return prompts_sha256(self[split])

    def record(self) -> dict[str, Any]:
        """Describe the set without its prompts, as plain values for run.json."""
        return {
            "name": self.name,
            "source": self.source,
            "licence": self.licence,
            "counts": self.counts,
            "sha256": {split: self.sha256(split) for split in SPLITS if self[split]},
            "notes": dict(self.notes),
        }
