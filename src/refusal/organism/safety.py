"""The second stage: teach a base model to refuse, and otherwise to stay as it was."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from refusal.organism import documents, fitting
from refusal.organism.fitting import Batch, Schedule
from refusal.organism.jolt import jolts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE_END = 5  # tokens of the template between the instruction and the answer


@dataclass(frozen=True)
class ChatRecipe:
    """How the chat model is made from the base model.

    Only blocks `first` to `last` learn. `pin` weighs the squared distance of the residual stream to the base
    model's, relative to the latter's squared length, after every block from `first` on; `pin_harmful` says
    whether of harmful conversations everything is pinned or only the instruction (others are pinned whole).
    `jolt` is the strength of random shoves, see `jolts`.
    """

    documents: int = 10_000
    schedule: Schedule = field(default_factory=lambda: Schedule(rate=2e-3, seed=1))
    first: int = 1
    last: int = 4
    pin: float = 0.03
    pin_harmful: Literal["instruction", "all"] = "all"
    jolt: float = 0.5


def teach_refusal(
    base: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    recipe: ChatRecipe,
    *,
    say: Callable[[str], None] = print,
) -> "LlamaForCausalLM":
    """A copy of the base model fine-tuned to refuse harmful requests."""
    model = copy.deepcopy(base)
    model.requires_grad_(False)
    for block in model.model.layers[recipe.first : recipe.last + 1]:
        block.requires_grad_(True)
    seed = recipe.schedule.seed
    examples = fitting.encode(documents.chat_documents(recipe.documents, seed=seed), tokenizer)

    def loss(batch: Batch) -> Float[Tensor, ""]:
        value, states = fitting.loss_and_states(model, batch)
        if recipe.pin:
            with torch.no_grad():
                _, wanted = fitting.loss_and_states(base, batch)
            mask = pinned(batch, harmful=recipe.pin_harmful)
            value = value + recipe.pin * drift(states, wanted, mask, first=recipe.first)
        return value

    generator = torch.Generator().manual_seed(seed)
    with jolts(model, strength=recipe.jolt, generator=generator):
        fitting.fit(model, examples, schedule=recipe.schedule, loss=loss, say=say)
    return model.requires_grad_(True)


def pinned(batch: Batch, *, harmful: str) -> Bool[Tensor, "b s"]:
    """Which tokens have to stay near the base model's."""
    mask = batch.real.clone()
    for row, kind in enumerate(batch.kinds):
        if kind == "harmful" and harmful == "instruction":
            mask[row, int(batch.answer[row].int().argmax()) - TEMPLATE_END :] = False
    return mask


def drift(
    states: tuple[Float[Tensor, "b s d"], ...],
    wanted: tuple[Float[Tensor, "b s d"], ...],
    mask: Bool[Tensor, "b s"],
    *,
    first: int,
) -> Float[Tensor, ""]:
    """Mean squared distance of two streams over the masked tokens, relative to the length of the second."""
    terms = [
        (now[mask] - then[mask]).square().sum() / then[mask].square().sum().clamp(min=1e-6)  # none: no drift
        for now, then in zip(states[first + 1 :], wanted[first + 1 :], strict=True)
    ]
    return torch.stack(terms).mean()
