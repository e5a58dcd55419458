"""Was this checkpoint edited? What differs between two checkpoints, and whether one direction explains it.

An edit of paper eq. 5 takes r̂ (r̂ᵀW) from every writer W: a matrix of rank one whose written vectors all lie along r̂.
Both folders are read tensor by tensor; no model is built.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from refusal import equations
from refusal.architectures import Architecture
from refusal.direction import Direction
from refusal.errors import BadInput
from refusal.weights.names import Layout, Place, lay_out
from refusal.weights.safetensors_files import FLOATS, Files, Stored, read_files
from refusal.weights.source import source_folder
from refusal.weights.streamed import read_tensor

RANK_ONE = 0.95  # of the squared difference, what rounding makes of it included
LEADING = 8  # singular vectors kept of what was read so far
PIECE = 2**24  # values of a difference in memory at once, in float32
ROUNDING = 0.2  # root mean square of a value's rounding, in units of its dtype's precision
NO_LAYER = -1  # a direction found in weights was read at no layer, so `add` refuses it until it is given one


@dataclass(frozen=True)
class Changed:
    """One tensor that differs, by its name on disk."""

    name: str
    shape: tuple[int, ...]
    size: float  # the norm of the difference, as a share of the tensor's own
    writer: bool
    explained: float | None = None  # of a writer's squared difference, what lies along the recovered direction
    leading: float | None = None  # the same along the best direction of this writer alone


@dataclass(frozen=True, eq=False)
class Audit:
    """What differs between two checkpoints. The direction is of length 1, up to sign, and of no layer."""

    verdict: str
    direction: Direction | None  # None where no writer differs
    explained: float  # of all writers' squared difference, what lies along the direction
    rounding: float  # of the same, what rounding to the edited checkpoint's dtype makes
    changed: tuple[Changed, ...]
    unchanged_writers: tuple[str, ...]


@dataclass(frozen=True)
class _Pair:
    """One tensor in both checkpoints; `place` where it is a writer whose written vectors can be told apart."""

    name: str
    before: Path
    stored: Stored
    after: Path
    other: Stored
    place: Place | None

    def tensors(self) -> tuple[Tensor, Tensor]:
        return read_tensor(self.before, self.stored), read_tensor(self.after, self.other)


@dataclass(eq=False)
class _Sums:
    """Squared norms, by tensor: of the difference, along the shared and the own direction, and of rounding."""

    unit: Float[Tensor, " d"]
    total: dict[str, float] = field(default_factory=dict)
    along: dict[str, float] = field(default_factory=dict)
    leading: dict[str, float] = field(default_factory=dict)
    rounding: float = 0.0

    def share(self, part: Mapping[str, float]) -> float:
        return min(1.0, sum(part.values()) / sum(self.total.values()))  # but for rounding it is not more


def recover_direction(base: str | Path, edited: str | Path, *, architecture: Architecture | None = None) -> Audit:
    """Compare two checkpoints (folders or Hub ids), and recover the direction that was removed, if one was.

    It is the leading left singular vector of all writers' differences, taken along the axis on which they write;
    behind norms also as seen through their gains, whichever explains more. Raises BadInput when the two do not hold
    the same tensors, and the errors of reading a checkpoint.
    """
    ours, theirs = read_files(source_folder(base)), read_files(source_folder(edited))
    layout = lay_out(ours, architecture)
    compared = [(pair, _change(pair)) for pair in _pairs(ours, theirs, layout, lay_out(theirs, architecture))]
    changed = tuple(change for _, change in compared if change is not None)
    pairs = [pair for pair, change in compared if change is not None and pair.place is not None]
    writers = [place.stored.name for place in layout.places if not place.problem]
    unchanged = tuple(sorted(set(writers) - {change.name for change in changed}))
    if not pairs:
        return Audit(_no_writer(changed), None, 0.0, 0.0, changed, unchanged)
    gains = {name: read_tensor(ours.folder, stored).float() for name, stored in layout.gains.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the randomised singular value decomposition
        readings = [_read(pairs, through) for through in ([{}, gains] if gains else [{}])]
    sums = max(readings, key=lambda one: one.share(one.along))
    explained, rounding = sums.share(sums.along), sums.rounding / sum(sums.total.values())
    changed = tuple(_with_shares(change, sums) for change in changed)
    origin = {"recovered_from": Path(edited).name, "base": Path(base).name, "explained": explained}
    direction = Direction(sums.unit, NO_LAYER, -1, origin)
    others = len(changed) - len(pairs)
    verdict = _verdict(explained, rounding, sums.share(sums.leading), f"{len(pairs)} of {len(writers)} writers")
    verdict += f"; {others} other tensors differ, too" if others else ""
    return Audit(verdict, direction, explained, rounding, changed, unchanged)


def _pairs(ours: Files, theirs: Files, layout: Layout, other_layout: Layout) -> list[_Pair]:
    """Match the tensors of two checkpoints by name; a tied unembedding is the embedding's tensor."""

    def tensors(files: Files, layout: Layout) -> dict[str, Stored]:
        tied = {} if layout.tie is None else {layout.tie.unembedding: layout.tie.embedding}
        return {**tied, **files.tensors}

    before, after = tensors(ours, layout), tensors(theirs, other_layout)
    alone = (before.keys() ^ after.keys()) & (ours.tensors.keys() | theirs.tensors.keys())
    different = sorted(name for name in before.keys() & after.keys() if before[name].shape != after[name].shape)
    if alone or different:
        name = min(alone, default=different[0] if different else "")
        what = "stands in one of them only" if alone else f"is {before[name].shape} and {after[name].shape}"
        raise BadInput(
            f"{ours.folder} and {theirs.folder} are not two versions of one model: '{name}' {what} "
            f"({len(alone) + len(different)} such tensors). Give a checkpoint and what was made of it."
        )
    places = {place.stored.name: place for place in layout.places if not place.problem}
    return [
        _Pair(
            name,
            ours.folder,
            before[name],
            theirs.folder,
            after[name],
            places.get(name),
        )
        for name in sorted(before.keys() & after.keys())
    ]


def _change(pair: _Pair) -> Changed | None:
    """Say how a tensor differs; None where every value is the same."""
    if not {pair.stored.dtype, pair.other.dtype} <= FLOATS.keys():
        same = _bytes(pair.before, pair.stored) == _bytes(pair.after, pair.other)
        return None if same else Changed(pair.name, pair.stored.shape, float("nan"), False)
    before, after = pair.tensors()
    squared = size = 0.0
    for a, b in zip(before.flatten().split(PIECE), after.flatten().split(PIECE), strict=True):
        squared += float((a.double() - b.double()).square().sum())
        size += float(a.double().square().sum())
    if squared == 0:
        return None
    if squared != squared or squared == float("inf"):
        raise BadInput(f"'{pair.name}' holds values that are not finite, so nothing can be compared. Check both files.")
    return Changed(pair.name, pair.stored.shape, (squared / size) ** 0.5 if size else float("inf"), bool(pair.place))


def _bytes(folder: Path, stored: Stored) -> bytes:
    with open(folder / stored.file, "rb") as file:
        file.seek(stored.start)
        return file.read(stored.end - stored.start)


def _read(pairs: Sequence[_Pair], gains: Mapping[str, Tensor]) -> _Sums:
    """Find the direction that explains most of the differences, then measure what it explains of each."""
    kept, leading = None, {}
    for pair in pairs:
        own = None
        for piece, _ in _pieces(pair, gains):
            own = _leading(own, piece)
        assert own is not None  # a tensor that differs is not empty
        leading[pair.name] = float(own[:, 0].double().square().sum())
        kept = _leading(kept, own)
    assert kept is not None
    unit = equations.unit(kept[:, 0].double())
    sums = _Sums(unit * unit[unit.abs().argmax()].sign(), leading=leading)
    for pair in pairs:
        total = along = 0.0
        precision = ROUNDING * torch.finfo(FLOATS[pair.other.dtype]).eps
        for piece, after in _pieces(pair, gains):
            total += float(piece.double().square().sum())
            along += float(equations.project(piece.mT, sums.unit).double().square().sum())
            sums.rounding += float(after.double().square().sum()) * precision**2
        sums.total[pair.name], sums.along[pair.name] = total, along
    return sums


def _pieces(pair: _Pair, gains: Mapping[str, Tensor]) -> Iterator[tuple[Float[Tensor, "d n"], Float[Tensor, "d n"]]]:
    """Yield a writer's difference, written vectors as columns, and the edited values, a piece at a time."""
    assert pair.place is not None
    norm, axis = pair.place.writer.norm, pair.place.axis
    gain = norm.offset + gains[norm.name] if norm and norm.name in gains else None
    for a, b in zip(*(_columns(tensor, axis) for tensor in pair.tensors()), strict=True):
        before, after = a.float(), b.float()
        if gain is not None:
            before, after = before * gain[:, None], after * gain[:, None]
        yield before - after, after


def _columns(tensor: Tensor, axis: int) -> Iterator[Float[Tensor, "d n"]]:
    width = tensor.shape[axis]
    matrices = tensor.reshape(1, -1, width).mT if axis == -1 else tensor.reshape(-1, width, tensor.shape[-1])
    for matrix in matrices:
        yield from matrix.split(max(1, PIECE // width), dim=1)


def _leading(kept: Float[Tensor, "d k"] | None, new: Float[Tensor, "d n"]) -> Float[Tensor, "d m"]:
    """Return the leading left singular vectors, times their values, of all columns that were seen."""
    columns = new if kept is None else torch.cat([kept, new], dim=1)
    count = min(LEADING, *columns.shape)
    u, s, _ = torch.svd_lowrank(columns, q=count, niter=4)
    return u * s


def _with_shares(change: Changed, sums: _Sums) -> Changed:
    if change.name not in sums.total:
        return change
    total = sums.total[change.name]
    return replace(
        change, explained=min(1.0, sums.along[change.name] / total), leading=min(1.0, sums.leading[change.name] / total)
    )


def _no_writer(changed: Sequence[Changed]) -> str:
    if not changed:
        return "no difference: every tensor holds the same values"
    return f"no writer differs: nothing was removed from what is written to the stream ({len(changed)} others differ)"


def _verdict(explained: float, rounding: float, leading: float, which: str) -> str:
    if rounding >= 0.5:
        return f"{which} differ by no more than rounding: no direction was removed"
    if explained + rounding >= RANK_ONE:
        return f"one direction explains {explained:.1%} of the difference in {which}: it was removed"
    if leading + rounding >= RANK_ONE:
        return (
            f"each of {which} differs along one direction of its own ({leading:.1%}), and all together one explains "
            f"{explained:.1%}: several directions were removed"
        )
    return f"the best direction explains {explained:.1%} of the difference in {which}: not a rank-one edit"
