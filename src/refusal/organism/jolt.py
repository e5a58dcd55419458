"""Random shoves of the residual stream while training, so that no answer hangs on a hair."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@contextmanager
def jolts(model: "LlamaForCausalLM", *, strength: float, generator: torch.Generator) -> Iterator[None]:
    """Within, each forward pass pushes the input of one random block of `model`.

    Every row gets its own random vector, the same at all positions, of length up to `strength` times the root
    mean square length of the residual stream. No direction is preferred: this knows nothing of refusal.
    """
    if not strength:
        yield
        return
    layers = model.model.layers
    chosen = [0]

    def choose(module: nn.Module, args: tuple[object, ...]) -> None:
        chosen[0] = int(torch.randint(len(layers), (), generator=generator))

    def shove(layer: int) -> "torch.utils.hooks.RemovableHandle":
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if layer != chosen[0]:
                return None
            return (_shoved(args[0], strength=strength, generator=generator), *args[1:])

        return layers[layer].register_forward_pre_hook(hook)

    first = layers[0].register_forward_pre_hook(choose)
    handles = [first, *(shove(layer) for layer in range(len(layers)))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _shoved(stream: Float[Tensor, "b s d"], *, strength: float, generator: torch.Generator) -> Float[Tensor, "b s d"]:
    rows, _, width = stream.shape
    vectors = torch.randn(rows, 1, width, generator=generator)
    lengths = strength * torch.rand(rows, 1, 1, generator=generator)
    scale = stream[:, 1:].detach().square().sum(-1).mean().sqrt()  # the first token's length is no measure
    return stream + scale * lengths * vectors / vectors.norm(dim=-1, keepdim=True)
