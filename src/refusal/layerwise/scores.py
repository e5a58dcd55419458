"""What is measured in a pass over the blocks: logits, class means, and all three scores of all candidates."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from refusal import engine, equations
from refusal.architectures import stream_width
from refusal.direction import Candidates
from refusal.extraction import Logits, Prompts, encode
from refusal.interventions import ablate, add
from refusal.layerwise.descent import Descent, Group
from refusal.layerwise.kept import store
from refusal.layerwise.loading import Layered
from refusal.model import ChatModel
from refusal.refusal_tokens import RefusalTokens, find_refusal_tokens
from refusal.rule import NO_DIFFERENCE, OFFICIAL, Limits, Score, choose
from refusal.selection import Selection
from refusal.sweep import AT_ONCE

NAN = float("nan")
Report = Callable[[int], None]


def remembered(layered: Layered, prompts: Prompts, *, report: Report | None = None) -> Logits:
    """Run all prompts in one pass, and return what stands in for `engine.last_logits` on any of them.

    For `filter_prompts` and `find_refusal_tokens`, which would each take passes of their own.
    """
    tokens = list(dict.fromkeys(map(tuple, encode(layered.model, prompts))))
    found: dict[tuple[int, ...], Tensor] = {}

    def read(which: Sequence[int], logits: Float[Tensor, "b v"]) -> None:
        found.update(zip((tokens[i] for i in which), logits.cpu(), strict=True))

    with store() as kept:
        Descent(layered.model, layered.disk, tokens, kept).run(read=read, report=report)
    return lambda _model, asked: torch.stack([found[tuple(row)] for row in asked])


def mean_difference(
    layered: Layered, harmful: Prompts, harmless: Prompts, *, report: Report | None = None
) -> Candidates:
    """Average resid_pre of every layer at every post-instruction position over two contrasting sets, in one pass.

    The numbers and `origin` are those of `extraction.mean_difference` (paper eq. 1 and 2), streamed in float64.
    """
    model = layered.model
    sets = [encode(model, prompts) for prompts in (harmful, harmless)]
    tokens, n = [*sets[0], *sets[1]], len(sets[0])
    positions = len(model.post_instruction)
    sums = torch.zeros(2, positions, model.n_layers, stream_width(model.network), dtype=torch.float64)

    def see(layer: int, which: Sequence[int], x: Float[Tensor, "b s d"]) -> None:
        other = torch.tensor([i >= n for i in which])
        ends = x[:, -positions:].double()
        for of in (0, 1):
            sums[of, :, layer] += ends[other == bool(of)].sum(0)

    with store() as kept:
        Descent(model, layered.disk, tokens, kept, until=model.n_layers - 1).run(see=see, report=report)
    counts = {"harmful": n, "harmless": len(sets[1])}
    origin = {"model": model.name, "fingerprint": layered.disk.fingerprint(), **counts}
    return Candidates(sums[0] / n, sums[1] / len(sets[1]), model.post_instruction_tokens, origin)


@dataclass(frozen=True, eq=False)
class Swept:
    """Every candidate's scores, positions ascending and layers ascending inside, and the means without intervention."""

    scores: list[Score]
    baseline: dict[str, float]
    notes: dict[str, int]  # bytes of activations at the end, in memory and on disk


def sweep(
    layered: Layered,
    candidates: Candidates,
    harmful: Prompts,
    harmless: Prompts,
    *,
    tokens: RefusalTokens,
    memory: int | None = None,
    folder: Path | None = None,
    report: Report | None = None,
) -> Swept:
    """Score every candidate in one pass over the blocks: the numbers of `sweep.sweep` (paper section C.1), to rounding.

    Every prompt goes down untouched, ablated of each candidate, and, if harmless, with each candidate added from its
    own layer on. `memory` is the allowance for these activations in bytes (by default half of what is free); beyond it
    they are in files, in a temporary folder inside `folder`. `report` is called with 1 after every block.
    Raises Unavailable when the disk is full.
    """
    model = layered.model
    measures = _Measures(model, candidates, encode(model, harmful), encode(model, harmless), tokens)
    with store(memory=memory, folder=folder) as kept:
        descent = Descent(model, layered.disk, measures.prompts, kept, measures.groups())
        descent.run(read=measures.read_untouched, report=report)
        notes = {"activations in memory, bytes": kept.in_memory, "activations in files, bytes": kept.on_disk}
    return Swept(measures.scores(), measures.baseline(), notes)


def select_direction(
    layered: Layered,
    candidates: Candidates,
    harmful: Prompts,
    harmless: Prompts,
    *,
    tokens: RefusalTokens | None = None,
    limits: Limits = OFFICIAL,
    memory: int | None = None,
    folder: Path | None = None,
) -> Selection:
    """Score every candidate and choose by the official rule, as `selection.select_direction` does."""
    if tokens is None:
        logits = remembered(layered, [*harmful, *harmless])
        tokens = find_refusal_tokens(layered.model, harmful, harmless, logits=logits)
    swept = sweep(layered, candidates, harmful, harmless, tokens=tokens, memory=memory, folder=folder)
    return Selection(candidates, choose(swept.scores, candidates.n_layers, limits=limits), tokens)


@dataclass(frozen=True, eq=False)
class _Measures:
    """The measurements of a sweep as they come: of every candidate, a value for every prompt."""

    model: ChatModel
    candidates: Candidates
    harmful: engine.Tokens
    harmless: engine.Tokens
    tokens: RefusalTokens
    untouched: dict[int, float] = field(default_factory=dict)  # metric of every prompt
    before: dict[int, Tensor] = field(default_factory=dict)  # logits of harmless prompts
    found: dict[str, dict[tuple[int, int], dict[int, float]]] = field(
        default_factory=lambda: {"bypass": {}, "induce": {}, "kl": {}}
    )

    @property
    def prompts(self) -> list[Sequence[int]]:
        """All validation prompts, the harmful first."""
        return [*self.harmful, *self.harmless]

    @cached_property
    def vectors(self) -> dict[tuple[int, int], Float[Tensor, " d"]]:
        """The candidates whose class means differ, positions ascending and layers ascending inside."""
        c = self.candidates
        places = ((position, layer) for position in c.positions for layer in range(c.n_layers))
        differences = c.differences
        return {place: differences[place] for place in places if c.differs(*place)}

    def groups(self) -> list[Group]:
        """All rows of the sweep: every prompt ablated of every candidate, and candidates of each layer added."""
        layers = range(self.candidates.n_layers)
        added = [self._added(layer, [place for place in self.vectors if place[1] == layer]) for layer in layers]
        return [group for group in (self._ablated(list(self.vectors)), *added) if group.prompts]

    def read_untouched(self, which: Sequence[int], logits: Float[Tensor, "b v"]) -> None:
        """Take the logits of prompts without intervention."""
        self.untouched.update(zip(which, self._metric(logits), strict=True))
        n = len(self.harmful)
        self.before.update((i, row.cpu()) for i, row in zip(which, logits, strict=True) if i >= n)

    def baseline(self) -> dict[str, float]:
        """Return the mean refusal metric without intervention, by class."""
        n = len(self.harmful)
        values = [self.untouched[i] for i in range(len(self.untouched))]
        return {"harmful": fmean(values[:n]), "harmless": fmean(values[n:])}

    def scores(self) -> list[Score]:
        """Return every candidate's scores; not a number where its class means do not differ."""
        layers = range(self.candidates.n_layers)
        return [self._score(position, layer) for position in self.candidates.positions for layer in layers]

    def _score(self, position: int, layer: int) -> Score:
        place = position, layer
        if place not in self.vectors:
            return Score(position, layer, NAN, NAN, NAN, NO_DIFFERENCE)
        mean = {kind: fmean(of[place][i] for i in sorted(of[place])) for kind, of in self.found.items()}
        return Score(position, layer, bypass=mean["bypass"], induce=mean["induce"], kl=mean["kl"])

    def _ablated(self, places: Sequence[tuple[int, int]]) -> Group:
        rows = [(place, i) for place in places for i in range(len(self.prompts))]
        n = len(self.harmful)

        def change(layer: int, which: Sequence[int]) -> AbstractContextManager[None]:
            return ablate(self.model, self._vectors([rows[i][0] for i in which]), layers=[layer])

        def read(which: Sequence[int], logits: Float[Tensor, "b v"]) -> None:
            refused = [k for k, i in enumerate(which) if rows[i][1] < n]
            self._note("bypass", [rows[which[k]] for k in refused], self._metric(logits[refused]))
            others = [k for k, i in enumerate(which) if rows[i][1] >= n]
            asked = [rows[which[k]] for k in others]
            self._note("kl", asked, self._kl([prompt for _, prompt in asked], logits[others]))

        return Group(0, [i for _, i in rows], change, read)

    def _added(self, at: int, places: Sequence[tuple[int, int]]) -> Group:
        n = len(self.harmful)
        rows = [(place, n + i) for place in places for i in range(len(self.harmless))]

        def change(layer: int, which: Sequence[int]) -> AbstractContextManager[None]:
            here = layer == at
            return add(self.model, self._vectors([rows[i][0] for i in which]), layer=at) if here else nullcontext()

        def read(which: Sequence[int], logits: Float[Tensor, "b v"]) -> None:
            self._note("induce", [rows[i] for i in which], self._metric(logits))

        return Group(at, [i for _, i in rows], change, read)

    def _vectors(self, places: Sequence[tuple[int, int]]) -> Float[Tensor, "b d"]:
        return torch.stack([self.vectors[place] for place in places])

    def _note(self, kind: str, rows: Sequence[tuple[tuple[int, int], int]], values: Sequence[float]) -> None:
        for (place, prompt), value in zip(rows, values, strict=True):
            self.found[kind].setdefault(place, {})[prompt] = value

    # In parts, because the softmax of many rows over a large vocabulary in float64 takes much memory.

    def _metric(self, logits: Float[Tensor, "b v"]) -> list[float]:
        tokens = self.tokens.tensor.to(logits.device)
        return [float(x) for part in logits.split(AT_ONCE) for x in equations.refusal_metric(part, tokens)]

    def _kl(self, prompts: Sequence[int], logits: Float[Tensor, "b v"]) -> list[float]:
        values: list[float] = []
        for start, part in zip(range(0, len(prompts), AT_ONCE), logits.split(AT_ONCE), strict=False):
            before = torch.stack([self.before[i] for i in prompts[start : start + AT_ONCE]]).to(part.device)
            values.extend(equations.kl_divergence(before, part).tolist())
        return values
