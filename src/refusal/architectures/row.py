"""What is said about a family: its blocks, the modules that add to the stream, the tensors that write to it.

Names are those of `named_parameters()`. In every pattern `*` stands for one part of a dotted name, such as the number
of a block or of an expert, `**` for any number of parts, and `[qkv]` for one of some letters.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

EXACT = "exact"  # the edited weights are the ablated model
COMPONENT_FREE = "component-free"  # they write nothing along r̂, and differ from the ablated model in a norm's length
MEASURED = "measured only"  # they may write along r̂: how much has to be measured


@dataclass(frozen=True)
class Norm:
    """A norm between a writer and the stream: out = (offset + gain) ⊙ y / ‖y‖, with y centred first or not."""

    name: str  # pattern of its gain; each `*` stands for what the writer's own `*` stands for
    offset: float = 0.0  # Gemma multiplies by 1 + gain
    centred: bool = False  # LayerNorm subtracts the mean, RMSNorm does not


@dataclass(frozen=True)
class Writer:
    """Tensors that write to the residual stream.

    `axis` is where a written vector lies: −1 for tables, biases and (in, out) matrices, −2 for a Linear's (out, in),
    also inside a stack of experts. `leak` says why no edit of this tensor can be exact, where that is so.
    """

    name: str
    axis: int
    norm: Norm | None = None
    leak: str = ""


@dataclass(frozen=True)
class Architecture:
    """One family: module paths from the causal-LM network, and inside a block."""

    model_types: tuple[str, ...]
    blocks: str  # the list of decoder blocks
    sublayers: tuple[str, ...]  # in a block: what is added to the stream, attention first; "a|b" is whichever is there
    mid: str  # in a block: the module that reads resid_mid; "" where there is no such point
    writers: tuple[Writer, ...]
    others: tuple[str, ...]  # parameters that read from the stream, or do neither
    requires: Mapping[str, object] = field(default_factory=dict)  # settings of the config for which the row holds
    through: tuple[str, ...] = ()  # in a block: norms that the stream itself goes through, not only a reader's copy
    outside: tuple[str, ...] = ()  # pattern of modules outside the blocks whose output no block's input covers
    padding: bool = True  # False: the family does not mask padding, so only prompts of one length share a batch
    leak: str = ""  # why no edit of any tensor can be exact, where that is so
    note: str = ""

    @property
    def leaks(self) -> str:
        """Every reason why something may be written along r̂ after an edit; "" where there is none."""
        found = [self.leak, *(f"{writer.name}: {writer.leak}" for writer in self.writers if writer.leak)]
        return "; ".join(dict.fromkeys(filter(None, found)))

    @property
    def edit(self) -> str:
        """What a weight edit reaches: EXACT, COMPONENT_FREE or MEASURED."""
        if self.leaks:
            return MEASURED
        return COMPONENT_FREE if any(writer.norm for writer in self.writers) else EXACT

    def writer(self, name: str) -> Writer | None:
        """Return the writer that a parameter is, with its own names in place of every `*`; None for all others."""
        for writer in self.writers:
            found = regex(writer.name).fullmatch(name)
            if found:
                norm = writer.norm and Norm(_filled(writer.norm.name, found), writer.norm.offset, writer.norm.centred)
                return Writer(name, writer.axis, norm, writer.leak)
        return None

    def knows(self, name: str) -> bool:
        """Return whether the row accounts for a parameter."""
        return self.writer(name) is not None or any(regex(pattern).fullmatch(name) for pattern in self.others)


@cache
def regex(pattern: str) -> re.Pattern[str]:
    """Return what a pattern of names stands for."""
    one, many, letters = (r"\*", "([^.]+)"), (r"\*\*", "(.+)"), ((r"\[", "["), (r"\]", "]"))
    text = re.escape(pattern)
    for written, meant in (many, one, *letters):
        text = text.replace(written, meant)
    return re.compile(text)


def _filled(pattern: str, found: re.Match[str]) -> str:
    parts = iter(found.groups())
    return re.sub(r"\*", lambda _: next(parts), pattern)
