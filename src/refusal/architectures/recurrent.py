"""State-space, linear-attention and convolution blocks, alone or mixed with attention."""

from dataclasses import replace

from refusal.architectures.parts import linear, readers, table, tensor
from refusal.architectures.prenorm import ATTENTION, BLOCK, EMBEDDING, LLAMA, MOE
from refusal.architectures.row import Architecture, Norm, Writer

RWKV_BLOCK = "rwkv.blocks.*"
SELF_ATTENTION = readers(f"{BLOCK}.self_attn", "[qkv]_proj", "[qk]_norm")
FEED_FORWARD = readers(f"{BLOCK}.feed_forward", "gate_proj", "up_proj")
MAMBA = (
    *readers(f"{BLOCK}.mamba", "in_proj", "conv1d", "norm"),
    *(f"{BLOCK}.mamba.{x}" for x in ("D", "A_log", "dt_bias")),
)
NORMS = readers(BLOCK, "input_layernorm", "pre_ff_layernorm")


def _biased(row: Architecture) -> Architecture:
    """Return the row for a bias in front of the convolution: transformers masks padding before it, so it leaks."""
    return replace(row, requires=dict.fromkeys(row.requires, True), padding=False)


QWEN3_NEXT = replace(
    MOE,
    model_types=("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"),
    sublayers=("self_attn|linear_attn", "mlp"),
    writers=(*MOE.writers, *linear(f"{BLOCK}.linear_attn.out_proj")),
    others=(
        *MOE.others,
        *(f"{BLOCK}.linear_attn.{name}" for name in ("dt_bias", "A_log")),
        *readers(f"{BLOCK}.linear_attn", "conv1d", "norm", "in_proj_qkvz", "in_proj_ba"),
        *readers(f"{BLOCK}.linear_attn", "in_proj_qkv", "in_proj_[zab]"),
    ),
)

MINIMAX = replace(
    MOE,
    model_types=("minimax",),
    writers=(
        *EMBEDDING,
        *ATTENTION,
        *linear(f"{BLOCK}.self_attn.out_proj"),
        *tensor(f"{BLOCK}.mlp.experts.down_proj", -2),
    ),
    others=(*MOE.others, *readers(f"{BLOCK}.self_attn", "norm", "qkv_proj", "output_gate")),
    through=("input_layernorm", "post_attention_layernorm"),
    leak="the stream itself goes through two norms in every block, and their gains turn other components into r̂",
    padding=False,
)

JAMBA = replace(
    LLAMA,
    model_types=("jamba", "bamba"),
    sublayers=("self_attn|mamba", "feed_forward"),
    mid="pre_ff_layernorm",
    writers=(
        *EMBEDDING,
        *ATTENTION,
        *linear(f"{BLOCK}.mamba.out_proj"),
        *linear(f"{BLOCK}.feed_forward.down_proj"),
        *tensor(f"{BLOCK}.feed_forward.experts.down_proj", -2),
    ),
    others=(
        *SELF_ATTENTION,
        *MAMBA,
        *readers(f"{BLOCK}.mamba", "x_proj", "dt_proj", "dt_layernorm", "[bc]_layernorm"),
        *FEED_FORWARD,
        *readers(BLOCK, "feed_forward.router"),
        f"{BLOCK}.feed_forward.experts.gate_up_proj",
        *NORMS,
        "model.final_layernorm.*",
        "lm_head.*",
    ),
    requires={"mamba_proj_bias": False},
)

FALCON_H1 = replace(  # attention and state space read the same input and are both added
    JAMBA,
    model_types=("falcon_h1",),
    sublayers=("self_attn", "feed_forward", "mamba"),
)

LFM2 = replace(
    LLAMA,
    model_types=("lfm2",),
    sublayers=("self_attn|conv", "feed_forward"),
    mid="ffn_norm",
    writers=(
        *EMBEDDING,
        *linear(f"{BLOCK}.self_attn.out_proj"),
        *linear(f"{BLOCK}.conv.out_proj"),
        *linear(f"{BLOCK}.feed_forward.w2"),
    ),
    others=(
        *readers(f"{BLOCK}.self_attn", "[qkv]_proj", "[qk]_layernorm"),
        *readers(f"{BLOCK}.conv", "conv", "in_proj"),
        *readers(f"{BLOCK}.feed_forward", "w[13]"),
        *readers(BLOCK, "operator_norm", "ffn_norm"),
        "model.embedding_norm.*",
        "lm_head.*",
    ),
    requires={"conv_bias": False},
)

MAMBA2 = Architecture(
    model_types=("mamba2", "mamba", "falcon_mamba"),
    blocks="backbone.layers",
    sublayers=("mixer",),
    mid="",
    writers=(*table("backbone.embeddings"), *linear("backbone.layers.*.mixer.out_proj")),
    others=(
        *readers("backbone.layers.*", "norm", "mixer.in_proj", "mixer.conv1d", "mixer.norm"),
        *readers("backbone.layers.*.mixer", "x_proj", "dt_proj"),
        *(f"backbone.layers.*.mixer.{name}" for name in ("dt_bias", "A_log", "D")),
        "backbone.norm_f.*",
        "lm_head.*",
    ),
    note="one sublayer a block",
    requires={"use_bias": False},
)

ZAMBA2 = Architecture(
    model_types=("zamba2",),
    blocks="model.layers",
    sublayers=("mamba|mamba_decoder.mamba", "linear"),
    mid="",
    writers=(
        *EMBEDDING,
        *linear(f"{BLOCK}.mamba.out_proj"),
        *linear(f"{BLOCK}.mamba_decoder.mamba.out_proj"),
        *linear(f"{BLOCK}.linear"),
    ),
    others=(
        *MAMBA,
        *(pattern.replace(".mamba.", ".mamba_decoder.mamba.") for pattern in MAMBA),
        *readers(BLOCK, "input_layernorm", "mamba_decoder.input_layernorm"),
        f"{BLOCK}.shared_transformer.**",  # writes into `linear` only
        "model.final_layernorm.*",
        "lm_head.*",
    ),
    outside=("model.embed_tokens",),  # every shared transformer reads the embedding again
    note="what the shared transformer gives is added to what the state space reads, not to the stream; it is treated "
    "as a writer all the same",
    requires={"add_bias_linear": False},
)

RECURRENT_GEMMA = Architecture(
    model_types=("recurrent_gemma",),
    blocks="model.layers",
    sublayers=("temporal_block", "mlp_block"),
    mid="channel_pre_norm",
    writers=(
        *EMBEDDING,
        *linear(f"{BLOCK}.temporal_block.o_proj"),
        *linear(f"{BLOCK}.temporal_block.linear_out"),
        *linear(f"{BLOCK}.mlp_block.down_proj"),
    ),
    others=(
        *readers(f"{BLOCK}.temporal_block", "[qkv]_proj", "linear_[xy]", "conv_1d", "rg_lru"),
        *readers(f"{BLOCK}.mlp_block", "gate_proj", "up_proj"),
        *readers(BLOCK, "temporal_pre_norm", "channel_pre_norm"),
        "model.final_norm.*",
        "lm_head.*",
    ),
    padding=False,
)

GATED = "a gate follows that scales each component by itself, and so turns other components into r̂"

RWKV = Architecture(
    model_types=("rwkv",),
    blocks="rwkv.blocks",
    sublayers=("attention", "feed_forward"),
    mid="ln2",
    writers=(
        Writer("rwkv.embeddings.weight", -1, Norm("rwkv.blocks.0.pre_ln.weight", centred=True)),
        *tensor("rwkv.blocks.0.pre_ln.bias", -1),
        *linear(f"{RWKV_BLOCK}.attention.output"),
        *linear(f"{RWKV_BLOCK}.feed_forward.value", leak=GATED),
    ),
    others=(
        *readers(RWKV_BLOCK, "ln[12]", "feed_forward.key", "feed_forward.receptance"),
        *readers(f"{RWKV_BLOCK}.attention", "key", "value", "receptance"),
        *(
            f"{RWKV_BLOCK}.attention.time_{name}"
            for name in ("decay", "first", "mix_key", "mix_value", "mix_receptance")
        ),
        *(f"{RWKV_BLOCK}.feed_forward.time_{name}" for name in ("mix_key", "mix_receptance")),
        "rwkv.blocks.0.pre_ln.weight",
        "rwkv.ln_out.*",
        "head.*",
    ),
    through=("pre_ln",),  # of the first block: resid_pre is in front of it
    padding=False,
)

CONVOLUTIONS = (JAMBA, FALCON_H1, LFM2, MAMBA2, ZAMBA2)

ROWS = (QWEN3_NEXT, MINIMAX, *CONVOLUTIONS, *(_biased(row) for row in CONVOLUTIONS), RECURRENT_GEMMA, RWKV)
