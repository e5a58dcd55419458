"""The suite's own check of types: what it keeps of one call has to hold in the next one, and nothing more."""

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

import once

X = torch.zeros(2, 3)


def inner(shape):
    """A function within a function, made anew by every call, of tensors of a given shape."""

    @jaxtyped(typechecker=once.beartype)
    def norms(x: Float[Tensor, shape], scale: float) -> Float[Tensor, "n"]:
        return x.norm(dim=-1) * scale if scale > 0 else x

    return norms


def test_inner_functions_are_checked_whenever_they_are_made():
    for _ in range(2):
        assert inner("n d")(X, 1.0).shape == (2,)
        with pytest.raises(TypeCheckError, match="parameters"):
            inner("n d")(X, "1")
        with pytest.raises(TypeCheckError, match="parameters"):
            inner("n d")(X[0], 1.0)
        with pytest.raises(TypeCheckError, match="return value"):
            inner("n d")(X, -1.0)


def test_another_hint_is_another_check():
    assert inner("n d")(X, 1.0).shape == (2,)
    with pytest.raises(TypeCheckError, match="parameters"):
        inner("n d k")(X, 1.0)
    with pytest.raises(TypeCheckError, match="return value"):  # after parameters that are right
        inner("n d k")(X[None], 1.0)


def test_checks_are_written_once():
    inner("n d")
    written = dict(once._WRITTEN)
    inner("n d")
    assert written == once._WRITTEN
