"""How forward passes are batched: like lengths together, a token budget, last-position logits, memory backoff."""

from collections.abc import Callable, Sequence
from inspect import signature

import torch
from jaxtyping import Float, Int
from torch import Tensor

from refusal.errors import Unavailable
from refusal.model import ChatModel

TOKEN_BUDGET = 8192  # padded tokens in one forward pass
Tokens = Sequence[Sequence[int]]


def plan(
    lengths: Sequence[int], *, budget: int = TOKEN_BUDGET, rows: int | None = None, padding: bool = True
) -> list[list[int]]:
    """Group indices into batches of at most `budget` padded tokens (and `rows` rows), longest first.

    Sorting by length keeps padding low; a single sequence over the budget is a batch of its own. Without `padding`
    only sequences of one length share a batch, for models that do not mask it.
    """
    batches: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        other = not padding and lengths[index] != width
        if not batches or other or width * (len(batches[-1]) + 1) > budget or len(batches[-1]) == rows:
            batches.append([])
            width = lengths[index]
        batches[-1].append(index)
    return batches


def pad(tokens: Tokens, pad_token: int) -> tuple[Int[Tensor, "b s"], Int[Tensor, "b s"], Int[Tensor, "b s"]]:
    """Pad on the left, so that −1 is the last token of every row: ids, attention mask, position ids.

    Position ids are explicit because some families are wrong with the mask alone.
    """
    width = max(len(row) for row in tokens)
    ids = torch.tensor([[pad_token] * (width - len(row)) + list(row) for row in tokens])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens])
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


@torch.no_grad()
def forward(model: ChatModel, tokens: Tokens) -> Float[Tensor, "b v"]:
    """Run one batch and return the logits of the last position, in float32."""
    ids, mask, positions = (x.to(model.device) for x in pad(tokens, model.pad_token))
    taken = signature(model.network.forward).parameters  # state-space families have no positions
    optional = {"position_ids": positions, "logits_to_keep": 1, "use_cache": False}
    arguments = {name: value for name, value in optional.items() if name in taken}
    output = model.network(input_ids=ids, attention_mask=mask, **arguments)
    return output.logits[:, -1].float()


def for_each_batch(
    tokens: Tokens,
    run: Callable[[list[int]], None],
    *,
    budget: int = TOKEN_BUDGET,
    rows: int | None = None,
    padding: bool = True,
) -> None:
    """Call `run` with the indices of every planned batch; a batch that does not fit in memory is halved and goes on.

    Raises Unavailable when a single sequence does not fit.
    """
    queue = plan([len(row) for row in tokens], budget=budget, rows=rows, padding=padding)
    while queue:
        batch = queue.pop(0)
        try:
            run(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise Unavailable(
                    f"A single prompt of {len(tokens[batch[0]])} tokens does not fit in memory. Use a larger device, a "
                    "smaller dtype, or shorter prompts."
                ) from error
            queue[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]


def last_logits(model: ChatModel, tokens: Tokens, *, budget: int = TOKEN_BUDGET) -> Float[Tensor, "n v"]:
    """Return every prompt's next-token logits in the given order, float32, on the CPU."""
    rows: dict[int, Tensor] = {}

    def run(batch: list[int]) -> None:
        rows.update(zip(batch, forward(model, [tokens[i] for i in batch]).cpu(), strict=True))

    for_each_batch(tokens, run, budget=budget, padding=model.architecture.padding)
    return torch.stack([rows[i] for i in range(len(tokens))])
