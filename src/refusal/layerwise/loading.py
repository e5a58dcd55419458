"""Opening a chat model whose blocks stay on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from refusal import engine, partial
from refusal.architectures import Architecture
from refusal.config import BUNDLED
from refusal.errors import BadSetting
from refusal.layerwise.descent import Descent, cannot
from refusal.layerwise.kept import store
from refusal.layerwise.on_disk import OnDisk, open_on_disk
from refusal.loading import SPREAD
from refusal.model import PROBES, ChatModel, load_model

# Found by running every covered family both ways: where the difference does not show in the first two blocks.
CANNOT = {"rwkv": "it changes its blocks' weights in memory when it first runs"}
REASON = "streamed: one block's weights in memory at a time, read from the checkpoint once a pass"


@dataclass(frozen=True, eq=False)
class Layered:
    """A chat model of which only what lies outside the blocks is in memory, and its blocks on disk."""

    model: ChatModel
    disk: OnDisk


def load_layered(
    model: str | Path = BUNDLED,
    *,
    dtype: str = "auto",
    device: str = "auto",
    system: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
    architecture: Architecture | None = None,
) -> Layered:
    """Open a chat model by Hugging Face id or folder without reading its blocks; settings are those of `load_model`.

    One prompt is run through the first two blocks whole and cut between them. Raises UnsupportedModel where the two
    differ, and the errors of `load_model`; checkpoints have to be safetensors, not quantized.
    """
    if device == SPREAD:
        raise BadSetting("stream_layers has one block in memory at a time: give one device for it, not 'spread'.")
    opened: list[OnDisk] = []

    def network(path: str, kind: Any, place: torch.device) -> Any:
        opened.append(open_on_disk(path, kind, place, architecture))
        return opened[0].network

    chat = load_model(
        model,
        dtype=dtype,
        device=device,
        system=system,
        template_arguments=template_arguments,
        architecture=architecture,
        network_from=network,
    )
    layered = Layered(replace(chat, choices={**chat.choices, "layers": REASON}), opened[0])
    _check(layered)
    return layered


@torch.no_grad()
def _check(layered: Layered) -> None:
    """Hold the first two blocks run one by one against the two run together."""
    model, found = layered.model, list[torch.Tensor]()
    if (why := CANNOT.get(model.network.config.model_type)) is not None:
        raise cannot(model, why)
    tokens = [model.encode(PROBES[0])]
    if model.n_layers < 2:
        return
    with layered.disk.on_demand():
        ends = model.n_layers == 2
        whole = engine.forward(model, tokens) if ends else partial.input_of(model, tokens, 2)
    with store() as kept:
        descent = Descent(model, layered.disk, tokens, kept, until=2)
        descent.run(
            see=lambda layer, _rows, x: found.append(x) if layer == 2 else None,
            read=lambda _rows, logits: found.append(logits),
        )
    off = float((found[0].to(whole) - whole).abs().max() / whole.abs().max())
    if not off < partial.same(model):
        raise cannot(model, f"behind the second block its numbers are off by {off:.2g} of the largest")
