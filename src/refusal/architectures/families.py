"""The rows: one a family of models that are laid out alike."""

from refusal.architectures.row import Architecture, Writer


def table(path: str) -> tuple[Writer, ...]:
    """An embedding or position table: one written vector a row."""
    return (Writer(f"{path}.weight", -1),)


def linear(path: str) -> tuple[Writer, ...]:
    """A Linear (out, in) with its bias, if it has one."""
    return Writer(f"{path}.weight", -2), Writer(f"{path}.bias", -1)


LLAMA = Architecture(
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma"),
    blocks="model.layers",
    sublayers=("self_attn", "mlp"),
    mid="post_attention_layernorm",
    writers=(
        *table("model.embed_tokens"),
        *linear("model.layers.*.self_attn.o_proj"),
        *linear("model.layers.*.mlp.down_proj"),
    ),
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
