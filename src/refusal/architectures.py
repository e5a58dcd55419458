"""Model families as data: where each one writes to its residual stream.

A row says where the blocks are and names every parameter as a writer, a reader or neither. `find` checks the row
against the loaded network, and any parameter the row does not account for is an error: an edit that silently missed
a writer is the costliest failure there is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from refusal.errors import UnsupportedModel


@dataclass(frozen=True)
class Architecture:
    """One family: module paths from the causal-LM network, and inside a block."""

    model_types: tuple[str, ...]
    blocks: str
    embedding: str
    unembedding: str
    attention: str  # in a block: the module whose output is added to the stream first
    mlp: str  # in a block: the module whose output is added second
    mid_norm: str  # in a block: the norm that reads resid_mid
    writers: tuple[str, ...]  # in a block: Linear modules (out, in) whose output goes to the stream as it is
    others: tuple[str, ...]  # parameter patterns that read from the stream, or do neither


LLAMA = Architecture(
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma"),
    blocks="model.layers",
    embedding="model.embed_tokens",
    unembedding="lm_head",
    attention="self_attn",
    mlp="mlp",
    mid_norm="post_attention_layernorm",
    writers=("self_attn.o_proj", "mlp.down_proj"),
    others=(
        "model.layers.*.self_attn.[qkv]_proj.*",
        "model.layers.*.self_attn.[qk]_norm.*",
        "model.layers.*.mlp.gate_proj.*",
        "model.layers.*.mlp.up_proj.*",
        "model.layers.*.input_layernorm.*",
        "model.layers.*.post_attention_layernorm.*",
        "model.norm.*",
        "lm_head.*",
    ),
)

ROWS: tuple[Architecture, ...] = (LLAMA,)


def find(network: nn.Module) -> Architecture:
    """Return the row of a loaded network, after checking that it accounts for every parameter.

    Raises UnsupportedModel for a `model_type` without a row and for a parameter that the row does not name.
    """
    model_type = str(getattr(getattr(network, "config", None), "model_type", "unknown"))
    for row in ROWS:
        if model_type in row.model_types:
            try:
                _check(network, row, model_type)
            except AttributeError as error:  # torch's word for a module that is not there
                raise UnsupportedModel(
                    f"This '{model_type}' network is not laid out as its family's row says: {error}. Load it as a "
                    "causal language model (with its unembedding)."
                ) from error
            return row
    known = ", ".join(sorted(name for row in ROWS for name in row.model_types))
    raise UnsupportedModel(
        f"The architecture '{model_type}' is not covered, so where it writes to the residual stream is unknown and "
        f"nothing is guessed. Covered: {known}. To cover it, add a row to refusal/architectures.py."
    )


def blocks(network: nn.Module, row: Architecture) -> list[nn.Module]:
    """Return the decoder blocks, first layer first."""
    return list(network.get_submodule(row.blocks).children())


def writers(network: nn.Module, row: Architecture) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module that writes to the residual stream with its name: the embedding, then block by block."""
    yield row.embedding, network.get_submodule(row.embedding)
    for layer, block in enumerate(blocks(network, row)):
        for name in row.writers:
            yield f"{row.blocks}.{layer}.{name}", block.get_submodule(name)


def _check(network: nn.Module, row: Architecture, model_type: str) -> None:
    written = {f"{name}.{kind}" for name, _ in writers(network, row) for kind in ("weight", "bias")}
    network.get_submodule(row.unembedding)
    for name, _ in network.named_parameters():
        if name not in written and not any(fnmatchcase(name, pattern) for pattern in row.others):
            raise UnsupportedModel(
                f"The parameter '{name}' of this '{model_type}' model is neither a known writer to the residual stream "
                "nor a known reader, so an edit could miss it. Add it to the family's row in refusal/architectures.py."
            )
