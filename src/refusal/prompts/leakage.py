"""The same prompt in two places: an error between splits, a note between evaluation sets.

Only exact duplicates are looked for, as in the paper's own split construction. Prompts are never quoted,
since they may be harmful: a place and the start of a hash identify them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from refusal.errors import LeakedPrompts
from refusal.prompts.sets import Prompt

SHOWN = 3


@dataclass(frozen=True)
class Overlap:
    """Instructions that two sets share: for each, its first index in either and the start of its SHA-256."""

    first: str
    second: str
    indices: tuple[tuple[int, int], ...]
    hashes: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many different instructions are shared."""
        return len(self.indices)

    def record(self) -> dict[str, Any]:
        """Describe the overlap as plain values for run.json."""
        return {
            "first": self.first,
            "second": self.second,
            "count": self.count,
            "indices": [list(pair) for pair in self.indices],
            "hashes": list(self.hashes),
        }


def find_overlaps(sets: Mapping[str, Sequence[Prompt]]) -> tuple[Overlap, ...]:
    """Compare every pair of sets by exact instruction; pairs that share nothing are left out."""
    places = {name: _first_places(prompts) for name, prompts in sets.items()}
    overlaps = []
    for first, second in combinations(places, 2):
        shared = [text for text in places[first] if text in places[second]]
        if shared:
            indices = tuple((places[first][text], places[second][text]) for text in shared)
            overlaps.append(Overlap(first, second, indices, tuple(_short_hash(text) for text in shared)))
    return tuple(overlaps)


def check_disjoint(splits: Mapping[str, Sequence[Prompt]]) -> None:
    """Raise LeakedPrompts when two of the named splits share an instruction.

    A direction found on a prompt, or chosen by it, must not be measured on that prompt (paper §A.1).
    """
    overlaps = find_overlaps(splits)
    if not overlaps:
        return
    raise LeakedPrompts(
        f"The same prompt stands in two splits: {'; '.join(_describe(overlap) for overlap in overlaps)}. "
        "Train, validation and test prompts must all differ: remove these from one of the two."
    )


def _describe(overlap: Overlap) -> str:
    examples = [
        f"{overlap.first}[{i}] = {overlap.second}[{j}] (SHA-256 {start}…)"
        for (i, j), start in zip(overlap.indices[:SHOWN], overlap.hashes, strict=False)
    ]
    more = "" if overlap.count <= SHOWN else f" and {overlap.count - SHOWN} more"
    return f"{overlap.count} of {overlap.first} in {overlap.second}: {', '.join(examples)}{more}"


def _first_places(prompts: Sequence[Prompt]) -> dict[str, int]:
    places: dict[str, int] = {}
    for index, prompt in enumerate(prompts):
        places.setdefault(prompt.instruction, index)
    return places


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
