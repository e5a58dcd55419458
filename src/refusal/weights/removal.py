"""What the edit does to one tensor: a rank-one removal, the same in every form that an export takes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from refusal import equations
from refusal.architectures import Norm, Writer


@dataclass(frozen=True, eq=False)
class Removal:
    """Every vector y that a tensor writes becomes y − along readᵀy, with readᵀalong = 1.

    Straight onto the stream both vectors are r̂ (paper eq. 5).
    """

    read: Float[Tensor, " d"]
    along: Float[Tensor, " d"]

    def edit(self, tensor: Tensor, axis: int) -> Tensor:
        """Return the edited tensor whose written vectors lie along `axis`; float32 inside, dtype and layout kept."""
        last = tensor if axis == -1 else tensor.mT
        edited = equations.remove(last, self.read, self.along)
        return edited if axis == -1 else edited.mT.contiguous()


def removal(writer: Writer, unit: Float[Tensor, " d"], gains: Mapping[str, Tensor]) -> Removal:
    """Return what keeps a writer from writing along r̂; `gains` holds the gain of the norm behind it, by name.

    A norm g ⊙ y / ‖y‖ shows r̂ what g ⊙ r̂ sees of y, and moving y along r̂ / g moves the output along r̂. So nothing is
    written along r̂, and all else is as under ablation but for the norm's length, which the removed part no longer
    feeds.
    """
    if writer.norm is None:
        return Removal(unit, unit)
    gain = writer.norm.offset + gains[writer.norm.name].to(unit)
    read = _centred(gain * unit, writer.norm)
    along = _centred(torch.where(gain == 0, 0.0, unit / gain), writer.norm)  # no gain: nothing passes there
    return Removal(read, along / equations.project(along, read))


def _centred(vector: Float[Tensor, " d"], norm: Norm) -> Float[Tensor, " d"]:
    return vector - vector.mean() if norm.centred else vector
