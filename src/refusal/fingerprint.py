"""A fingerprint of a model's weights, by which a direction is known again as its own.

It is a hash of signs. No rounding to another dtype changes the sign of a value, so every load of one checkpoint has the
same; training moves some values across zero, so a base model and the chat model made of it have different ones.
"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from jaxtyping import Float
from torch import Tensor

from refusal.architectures import writers
from refusal.model import ChatModel

VALUES = 2**16  # hashed of every matrix: a change of one part in ten thousand flips a few of a model's millions


def fingerprint(model: ChatModel) -> str | None:
    """Return the hash of a loaded model's weights: of every matrix that writes to the residual stream, the first rows.

    None where the values are not there as numbers, such as in a quantized, offloaded or sharded network.
    """
    names = sorted(writer.name for writer in writers(model.network, model.architecture))
    matrices = [p.data for name in names if (p := model.network.get_parameter(name)).ndim == 2]
    return sign_hash(matrices) if all(map(_is_plain, matrices)) else None


def head_rows(shape: Sequence[int]) -> int:
    """Return how many rows of a matrix are hashed."""
    return min(shape[0], -(-VALUES // max(1, shape[1])))


def sign_hash(matrices: Sequence[Float[Tensor, "_ _"]]) -> str | None:
    """Hash the signs of the first rows of matrices, in the order given; None for none."""
    found = sha256()
    for matrix in matrices:
        signs = matrix[: head_rows(matrix.shape)].signbit().cpu()
        found.update(np.packbits(signs.numpy()).tobytes())
    return found.hexdigest() if matrices else None


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and tensor.is_floating_point() and tensor.itemsize > 1 and not tensor.is_meta
