"""Weight orthogonalization of a loaded network."""

from copy import deepcopy
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from refusal import equations
from refusal.architectures import writers
from refusal.direction import Direction
from refusal.errors import UnsupportedModel
from refusal.interventions import for_model
from refusal.model import ChatModel


@torch.no_grad()
def orthogonalize(model: ChatModel, direction: Direction, *, in_place: bool = False) -> ChatModel:
    """Keep every matrix and bias that writes to the residual stream from writing along r̂ (paper eq. 5, section E).

    Returns a new model and leaves the given one alone, or edits the given one `in_place`. Tied embeddings are untied
    first: editing the shared matrix would change the unembedding too, which ablation does not. Computed in float32.
    Raises BadInput for a direction of another width, UnsupportedModel for quantized weights.
    """
    unit = for_model(direction.unit, model)
    edited = model if in_place else replace(model, network=_copy(model.network))
    _untie(edited)
    for name, module in writers(edited.network, edited.architecture):
        _project_out(name, module, unit)
    return edited


def _copy(network: PreTrainedModel) -> PreTrainedModel:
    """Copy a network without the interventions that may be active around it: a copied hook could never be removed."""
    copied = deepcopy(network)
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return copied


def _project_out(name: str, module: nn.Module, unit: Float[Tensor, " d"]) -> None:
    tensors = dict(module.named_parameters(recurse=False))
    if not tensors["weight"].is_floating_point():
        raise UnsupportedModel(
            f"The weight of '{name}' is {tensors['weight'].dtype}: a quantized matrix cannot be edited exactly. "
            "Load the model in a floating point dtype."
        )
    unit = unit.to(tensors["weight"].device, torch.float32)
    # An embedding holds a token a row, a Linear writes by columns; a bias is one more vector that is written.
    edit = equations.ablate if isinstance(module, nn.Embedding) else equations.orthogonalize
    tensors["weight"].copy_(edit(tensors["weight"], unit))
    if "bias" in tensors:
        tensors["bias"].copy_(equations.ablate(tensors["bias"], unit))


def _untie(model: ChatModel) -> None:
    embedding, unembedding = (
        model.network.get_submodule(name) for name in (model.architecture.embedding, model.architecture.unembedding)
    )
    if unembedding.weight is embedding.weight:
        unembedding.weight = nn.Parameter(embedding.get_parameter("weight").detach().clone())
        model.network.config.tie_word_embeddings = False
