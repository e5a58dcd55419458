"""Families with a norm between what a sublayer computes and the stream. The norm's output is what joins the stream."""

from dataclasses import replace

from refusal.architectures.parts import linear, readers
from refusal.architectures.prenorm import BLOCK, EMBEDDING, LLAMA, READERS
from refusal.architectures.row import Architecture, Norm, Writer


def _both(attention: str, mlp: str, offset: float = 0.0) -> tuple[Writer, ...]:
    return (
        *EMBEDDING,
        *linear(f"{BLOCK}.self_attn.o_proj", Norm(f"{BLOCK}.{attention}.weight", offset)),
        *linear(f"{BLOCK}.mlp.down_proj", Norm(f"{BLOCK}.{mlp}.weight", offset)),
    )


GEMMA2 = replace(
    LLAMA,
    model_types=("gemma2", "gemma3_text"),
    sublayers=("post_attention_layernorm", "post_feedforward_layernorm"),
    mid="pre_feedforward_layernorm",
    writers=_both("post_attention_layernorm", "post_feedforward_layernorm", offset=1.0),
    others=(*READERS, *readers(BLOCK, "pre_feedforward_layernorm", "post_feedforward_layernorm")),
)

OLMO2 = replace(  # no norm in front: the MLP itself reads resid_mid
    LLAMA,
    model_types=("olmo2", "olmo3", "exaone4"),
    sublayers=("post_attention_layernorm", "post_feedforward_layernorm"),
    mid="mlp",
    writers=_both("post_attention_layernorm", "post_feedforward_layernorm"),
    others=(*READERS, *readers(BLOCK, "post_feedforward_layernorm")),
)

GLM4 = replace(
    LLAMA,
    model_types=("glm4",),
    sublayers=("post_self_attn_layernorm", "post_mlp_layernorm"),
    writers=_both("post_self_attn_layernorm", "post_mlp_layernorm"),
    others=(*READERS, *readers(BLOCK, "mlp.gate_up_proj", "post_self_attn_layernorm", "post_mlp_layernorm")),
)

GEMMA3N = Architecture(
    model_types=("gemma3n_text",),
    blocks="model.layers",
    sublayers=("post_attention_layernorm", "post_feedforward_layernorm", "laurel", "post_per_layer_input_norm"),
    mid="",
    writers=(
        *_both("post_attention_layernorm", "post_feedforward_layernorm"),
        *linear(f"{BLOCK}.laurel.linear_right", Norm(f"{BLOCK}.laurel.post_laurel_norm.weight")),
        *linear(f"{BLOCK}.per_layer_projection", Norm(f"{BLOCK}.post_per_layer_input_norm.weight")),
        *linear("model.altup_projections.*"),
        *linear("model.altup_unembed_projections.*"),
    ),
    others=(
        *READERS,
        *readers(BLOCK, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
        *readers(f"{BLOCK}.laurel", "linear_left", "post_laurel_norm"),
        f"{BLOCK}.altup.correct_output_scale",
        *readers(f"{BLOCK}.altup", "correction_coefs", "prediction_coefs", "modality_router", "router_norm"),
        *readers(BLOCK, "per_layer_input_gate", "post_per_layer_input_norm"),
        *readers("model", "embed_tokens_per_layer", "per_layer_model_projection", "per_layer_projection_norm"),
    ),
    requires={"altup_active_idx": 0},
    outside=("model.embed_tokens", "model.altup_unembed_projections.*"),
    leak="every block adds its own normed input to the stream (laurel), and that norm's gain turns other components "
    "into r̂",
    note="several streams side by side: all are intervened on, the first, which the layers read, is captured; there is "
    "no single resid_mid",
)

ROWS = (GEMMA2, OLMO2, GLM4, GEMMA3N)
