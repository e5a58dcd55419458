"""Weight orthogonalization of a loaded network."""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from refusal import equations
from refusal.architectures import writers
from refusal.direction import Direction
from refusal.model import ChatModel


@torch.no_grad()
def orthogonalize(model: ChatModel, direction: Direction, *, in_place: bool = False) -> ChatModel:
    """Keep every matrix and bias that writes to the residual stream from writing along r̂ (paper eq. 5, section E).

    Returns a new model and leaves the given one alone, or edits the given one `in_place`. Tied embeddings are untied
    first: editing the shared matrix would change the unembedding too, which ablation does not. Computed in float32.
    """
    edited = model if in_place else replace(model, network=deepcopy(model.network))
    _untie(edited)
    for _, module in writers(edited.network, edited.architecture):
        unit = direction.unit.to(module.weight.device, torch.float32)
        rows = isinstance(module, nn.Embedding)  # a token a row; a Linear writes by columns
        weight = module.weight
        weight.copy_(equations.ablate(weight, unit) if rows else equations.orthogonalize(weight, unit))
        if getattr(module, "bias", None) is not None:
            module.bias.copy_(equations.ablate(module.bias, unit))
    return edited


def _untie(model: ChatModel) -> None:
    embedding = model.network.get_submodule(model.architecture.embedding)
    unembedding = model.network.get_submodule(model.architecture.unembedding)
    if unembedding.weight is embedding.weight:
        unembedding.weight = nn.Parameter(unembedding.weight.detach().clone())
        model.network.config.tie_word_embeddings = False
