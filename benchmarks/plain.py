"""The paper's procedure read plainly from its official code: what the benchmarks measure against.

One candidate a forward pass, prompts in the given order in batches of 32, padded on the left, hooks that write into
the activations, the logits of all positions, and the whole of them in float64 before the last is taken.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

BATCH = 32
Tokens = Sequence[Sequence[int]]


def pad(tokens: Tokens, pad_token: int, device: torch.device) -> dict[str, Tensor]:
    """Pad on the left: what the network is called with."""
    width = max(map(len, tokens))
    ids = torch.tensor([[pad_token] * (width - len(row)) + list(row) for row in tokens], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=device)
    return {"input_ids": ids, "attention_mask": mask}


@contextmanager
def ablated(network: nn.Module, direction: Tensor) -> Iterator[None]:
    """Remove a direction from the input of every block and from what its attention and its MLP return."""
    with ExitStack() as stack:
        for block in network.model.layers:
            stack.callback(block.register_forward_pre_hook(_Ablation(direction).before).remove)
            for module in (block.self_attn, block.mlp):
                stack.callback(module.register_forward_hook(_Ablation(direction).after).remove)
        yield


class _Ablation:
    """The official hook: the direction is cast to the activation's format, and made a unit vector at every call."""

    def __init__(self, direction: Tensor):
        self.direction = direction

    def remove(self, x: Tensor) -> None:
        self.direction = (self.direction / (self.direction.norm(dim=-1, keepdim=True) + 1e-8)).to(x)
        x -= (x @ self.direction).unsqueeze(-1) * self.direction

    def before(self, _module: nn.Module, args: tuple) -> None:
        self.remove(args[0])

    def after(self, _module: nn.Module, _args: tuple, output: Tensor | tuple) -> None:
        self.remove(output[0] if isinstance(output, tuple) else output)


@contextmanager
def added(network: nn.Module, vector: Tensor, layer: int) -> Iterator[None]:
    """Add a vector to the input of one block."""

    def before(_module: nn.Module, args: tuple) -> None:
        x = args[0]
        x += vector.to(x)

    handle = network.model.layers[layer].register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def refusal_scores(network: nn.Module, tokens: Tokens, refusal: Sequence[int], pad_token: int) -> Tensor:
    """Return the refusal metric of every prompt (paper equations 6 to 9)."""
    found = []
    for start in range(0, len(tokens), BATCH):
        logits = network(**pad(tokens[start : start + BATCH], pad_token, _device(network))).logits
        probabilities = logits.to(torch.float64)[:, -1, :].softmax(-1)  # all positions are cast, and one is read
        p = probabilities[:, list(refusal)].sum(-1)
        found.append((p + 1e-8).log() - (1 - p + 1e-8).log())
    return torch.cat(found)


@torch.no_grad()
def last_logits(network: nn.Module, tokens: Tokens, pad_token: int) -> Tensor:
    """Return the next-token logits of every prompt."""
    starts = range(0, len(tokens), BATCH)
    batches = (pad(tokens[start : start + BATCH], pad_token, _device(network)) for start in starts)
    return torch.cat([network(**batch).logits[:, -1, :] for batch in batches])


def divergence(before: Tensor, after: Tensor) -> Tensor:
    """Return KL(before ‖ after) of every prompt."""
    p, q = before.to(torch.float64).softmax(-1), after.to(torch.float64).softmax(-1)
    return (p * ((p + 1e-6).log() - (q + 1e-6).log())).sum(-1)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
