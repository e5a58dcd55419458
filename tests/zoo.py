"""A tiny random model of every covered `model_type`, built from its config: no download, each built once.

Axes differ in length, gains and biases are random and ties are the family's own, as in tiny.py and for its reasons;
families that force attention to d_model keep a square matrix there. `KINDS` names each type, and a variant with
another layout after a space.
"""

from collections.abc import Mapping
from functools import lru_cache

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)

import tiny
from qwen1 import Qwen1, Qwen1Config
from refusal.model import ChatModel, load_model

WORDS = tiny.tokenizer()
VOCABULARY = len(WORDS) + 4  # the last ones stand for images
IMAGE, IMAGE_START, IMAGE_END, VIDEO = range(len(WORDS), VOCABULARY)
TOKENS = {"bos_token_id": WORDS.bos_token_id, "eos_token_id": WORDS.eos_token_id, "pad_token_id": WORDS.pad_token_id}
D, HEADS, KV_HEADS, HEAD_DIM, INNER, LAYERS = tiny.D, tiny.HEADS, tiny.KV_HEADS, tiny.HEAD_DIM, tiny.INNER, 3
SHAPE = {
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 300,
    "vocab_size": VOCABULARY,
    **TOKENS,
}
WIDE = {**SHAPE, "head_dim": HEAD_DIM}  # where attention may be wider than the stream
MPT = {"d_model": D, "n_heads": HEADS, "n_layers": LAYERS, "max_seq_len": 300, "vocab_size": VOCABULARY, **TOKENS}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 12}
DELTA = {  # gated linear attention between attention
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
DEEPSEEK = {
    **EXPERTS,
    **{"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    **{"kv_lora_rank": 14, "q_lora_rank": 18, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 8},
    **{"num_key_value_heads": HEADS, "head_dim": 4, "attention_bias": True},
}
MAMBA = {"mamba_n_heads": 6, "mamba_d_head": 8, "mamba_d_state": 5, "mamba_chunk_size": 8, "mamba_n_groups": 1}
WINDOW = {"sliding_window": 6}
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20}

# kind → (settings that every family of the kind shares, settings of its own)
KINDS: dict[str, tuple[Mapping, Mapping]] = {
    "llama": (WIDE, {"attention_bias": True, "mlp_bias": True}),
    "mistral": (WIDE, WINDOW),
    "qwen2": (WIDE, {"tie_word_embeddings": True}),
    "qwen3": (WIDE, {"attention_bias": True, "tie_word_embeddings": True}),
    "gemma": (WIDE, {"attention_bias": True}),
    "olmo": (SHAPE, {"attention_bias": True}),
    "granite": (
        SHAPE,
        {"attention_bias": True, "mlp_bias": True, "residual_multiplier": 0.5, "embedding_multiplier": 3},
    ),
    "nemotron": (WIDE, {"attention_bias": True, "mlp_bias": True, "partial_rotary_factor": 1.0}),
    "smollm3": (WIDE, {"attention_bias": True, "mlp_bias": True}),
    "ernie4_5": (WIDE, {"use_bias": True}),
    "seed_oss": (WIDE, {"attention_out_bias": True, "mlp_bias": True}),
    "phi3": (SHAPE, {}),
    "hunyuan_v1_dense": (WIDE, {"attention_bias": True, "tie_word_embeddings": True}),
    "stablelm": (SHAPE, {"partial_rotary_factor": 1.0, "use_qkv_bias": True, "qk_layernorm": True}),
    "apertus": (WIDE, {"attention_bias": True}),
    "starcoder2": (SHAPE, {}),
    "cohere": (SHAPE, {"attention_bias": True, "logit_scale": 0.5}),
    "cohere2": (WIDE, {"attention_bias": True, **WINDOW}),
    "mixtral": (WIDE, {"num_local_experts": 3, **EXPERTS}),
    "qwen2_moe": (WIDE, {"num_experts": 3, **EXPERTS, "shared_expert_intermediate_size": 20, "mlp_only_layers": [1]}),
    "qwen3_moe": (WIDE, {"num_experts": 3, **EXPERTS, "mlp_only_layers": [1], "attention_bias": True}),
    "deepseek_v2": (SHAPE, DEEPSEEK),
    "deepseek_v3": (SHAPE, DEEPSEEK),
    "granitemoe": (SHAPE, {"num_local_experts": 3, **EXPERTS, "residual_multiplier": 0.5, "attention_bias": True}),
    "gpt_oss": (WIDE, {"num_local_experts": 3, **EXPERTS, **WINDOW}),
    "llama4_text": (
        WIDE,
        {
            **{"num_local_experts": 3, "num_experts_per_tok": 1, "intermediate_size_mlp": 30},
            **{"interleave_moe_layer_step": 2, "attention_chunk_size": 8, "attention_bias": True},
        },
    ),
    "jetmoe": (SHAPE, {"num_local_experts": 3, "num_experts_per_tok": 2, "kv_channels": HEAD_DIM}),
    "gemma2": (WIDE, {"attention_bias": True, **WINDOW}),
    "gemma3_text": (WIDE, {"attention_bias": True, **WINDOW}),
    "olmo2": (SHAPE, {"attention_bias": True}),
    "olmo3": (SHAPE, {"attention_bias": True, **WINDOW}),
    "exaone4": (WIDE, {**WINDOW, "sliding_window_pattern": 2}),
    "glm4": (WIDE, {}),
    "gemma3n_text": (
        WIDE,
        {
            **{"hidden_size_per_layer_input": 7, "vocab_size_per_layer_input": VOCABULARY, "altup_num_inputs": 3},
            **{"laurel_rank": 5, "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0] * LAYERS, **WINDOW},
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
    ),
    "gpt2": (SHAPE, {"n_inner": INNER}),
    "qwen": (SHAPE, {}),
    "gptj": (SHAPE, {"n_inner": INNER, "rotary_dim": 4}),
    "codegen": (SHAPE, {"n_inner": INNER, "rotary_dim": 4}),
    "gpt_neox": (SHAPE, {"rotary_pct": 1.0}),
    "persimmon": (SHAPE, {"partial_rotary_factor": 1.0}),
    "phi": (SHAPE, {"partial_rotary_factor": 1.0, "qk_layernorm": True}),
    "opt": (SHAPE, {"ffn_dim": INNER, "word_embed_proj_dim": D}),
    "biogpt": (SHAPE, {}),
    "xglm": (SHAPE, {"ffn_dim": INNER}),
    "bloom": (SHAPE, {}),
    "falcon": (SHAPE, {"bias": True}),
    "mpt": (MPT, {}),
    "dbrx": (
        MPT,
        {
            "attn_config": {"kv_n_heads": KV_HEADS, "clip_qkv": 8.0, "rope_theta": 10000.0},
            "ffn_config": {"ffn_hidden_size": 12, "moe_num_experts": 3, "moe_top_k": 2, "hidden_size": D},
        },
    ),
    "qwen3_next": (
        WIDE,
        {
            **{**DELTA, "num_experts": 3, **EXPERTS, "shared_expert_intermediate_size": 20, "mlp_only_layers": [1]},
            **{"partial_rotary_factor": 1.0, "attention_bias": True},
        },
    ),
    "qwen3_5_text": (WIDE, {**DELTA, "attention_bias": True, "tie_word_embeddings": True}),
    "minimax": (WIDE, {"num_local_experts": 3, **EXPERTS, "layer_types": DELTA["layer_types"], "block_size": 8}),
    "jamba": (
        SHAPE,
        {
            **{"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
            **{"num_experts": 3, "num_experts_per_tok": 2, "mamba_d_state": 5, "mamba_dt_rank": 3},
            **{"use_mamba_kernels": False},
        },
    ),
    "bamba": (SHAPE, {**MAMBA, "attn_layer_indices": [1], "mlp_bias": True}),
    "falcon_h1": (
        WIDE,
        {
            **{**MAMBA, "mamba_d_ssm": 48, "mlp_bias": True, "projectors_bias": True},
            **{"attention_out_multiplier": 0.7, "ssm_out_multiplier": 1.3, "mlp_multipliers": [0.9, 1.2]},
        },
    ),
    "lfm2": (
        SHAPE,
        {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False},
    ),
    "mamba2": (
        SHAPE,
        {"num_heads": 6, "head_dim": 8, "state_size": 5, "chunk_size": 8, "n_groups": 1},
    ),
    "zamba2": (
        SHAPE,
        {
            **{"layers_block_type": ["mamba", "hybrid", "mamba"], "hybrid_layer_ids": [1], "mamba_d_state": 5},
            **{"n_mamba_heads": 6, "mamba_headdim": 8, "mamba_ngroups": 1, "chunk_size": 8, "num_mem_blocks": 1},
            **{"adapter_rank": 5, "attention_head_dim": 12},
        },
    ),
    "recurrent_gemma": (
        WIDE,
        {
            "block_types": ["recurrent", "attention"],
            "attention_window_size": 64,
            "lru_width": 28,
            "attention_bias": True,
        },
    ),
    "arcee": (WIDE, {"attention_bias": True, "mlp_bias": True}),
    "cwm": (WIDE, {"attention_bias": True, **WINDOW}),
    "helium": (SHAPE, {"head_dim": 6, "attention_bias": True, "mlp_bias": True}),
    "jais2": (WIDE, {"attention_bias": True, "mlp_bias": True}),
    "ministral": (WIDE, WINDOW),
    "ministral3": (WIDE, {}),
    "glm": (WIDE, {}),
    "olmoe": (SHAPE, {"num_experts": 3, "num_experts_per_tok": 2, "attention_bias": True}),
    "glm4_moe": (
        WIDE,
        {
            **{**EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
            **{"partial_rotary_factor": 1.0, "attention_bias": True},
        },
    ),
    "minimax_m2": (WIDE, {"num_local_experts": 3, "num_experts_per_tok": 2}),
    "phimoe": (WIDE, {"num_local_experts": 3, "num_experts_per_tok": 2, "attention_bias": True}),
    "cohere2_moe": (WIDE, {"num_experts": 3, **EXPERTS, **WINDOW}),
    "vaultgemma": (WIDE, {"attention_bias": True, **WINDOW}),
    "granitemoeshared": (SHAPE, {"num_local_experts": 3, **EXPERTS, "shared_intermediate_size": 20}),
    "gpt_bigcode": (SHAPE, {"n_inner": INNER}),
    "qwen3_5_moe_text": (
        WIDE,
        {**DELTA, "num_experts": 3, **EXPERTS, "shared_expert_intermediate_size": 20, "attention_bias": True},
    ),
    "mamba": (SHAPE, {"state_size": 5, "expand": 2}),
    "falcon_mamba": (SHAPE, {"state_size": 5, "expand": 2}),
    "rwkv": (SHAPE, {"rescale_every": 2, "context_length": 300}),
    "gemma3": (
        {},
        {
            "text_config": {**WIDE, **WINDOW, "model_type": "gemma3_text"},
            "vision_config": {**VISION, "image_size": 8, "patch_size": 2},
            **{"mm_tokens_per_image": 4, "image_token_index": IMAGE, "boi_token_index": IMAGE_START},
            **{"eoi_token_index": IMAGE_END, "tie_word_embeddings": True},
        },
    ),
    "mistral3": (
        {},
        {
            "text_config": {**WIDE, "model_type": "mistral"},
            "vision_config": {**VISION, "model_type": "pixtral", "image_size": 8, "patch_size": 2, "head_dim": 8},
            **{"spatial_merge_size": 2, "image_token_index": IMAGE, "multimodal_projector_bias": True},
            "tie_word_embeddings": False,
        },
    ),
    "qwen3_vl": (
        {},
        {
            "text_config": {
                **{**WIDE, "head_dim": 12},
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]},
            },
            "vision_config": {
                **{"depth": 2, "hidden_size": 32, "num_heads": 4, "intermediate_size": 20, "out_hidden_size": D},
                **{"patch_size": 2, "spatial_merge_size": 2, "temporal_patch_size": 1, "num_position_embeddings": 16},
                "deepstack_visual_indexes": [0, 1],
            },
            **{"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": IMAGE_START},
            **{"vision_end_token_id": IMAGE_END, "tie_word_embeddings": True},
        },
    ),
}

# Variants that another row, or a condition inside a row, covers: other settings of a kind above.
for kind, own in {
    "jamba biased": {"mamba_proj_bias": True},
    "bamba biased": {"mamba_proj_bias": True},
    "falcon_h1 biased": {"mamba_proj_bias": True},
    "lfm2 biased": {"conv_bias": True},
    "mamba2 biased": {"use_bias": True},
    "mamba biased": {"use_bias": True},
    "falcon_mamba biased": {"use_bias": True},
    "zamba2 biased": {"add_bias_linear": True},
    "gpt_neox sequential": {"use_parallel_residual": False},
    "stablelm parallel": {"use_parallel_residual": True},
    "falcon new": {"new_decoder_architecture": True, "num_kv_heads": KV_HEADS, "bias": False},
    "falcon sequential": {"parallel_attn": False, "alibi": True, "multi_query": False},
}.items():
    shared, base = KINDS[kind.split()[0]]
    KINDS[kind] = (shared, {**base, **own})


def network(kind: str, *, seed: int = 0) -> PreTrainedModel:
    """A fresh network with random weights, gains and biases, large enough for an effect to show."""
    shared, own = KINDS[kind]
    model_type = kind.split(" ")[0]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if model_type == "qwen":
            made = Qwen1(Qwen1Config(**{**shared, **own}))
        else:
            config = AutoConfig.for_model(model_type, **{**shared, **own})
            causal = type(config) in AutoModelForCausalLM._model_mapping
            auto = AutoModelForCausalLM if causal else AutoModelForImageTextToText
            made = auto.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if parameter.ndim == 1 or "time_mix" in name:  # gains, biases, rates: about what they begin with
                    parameter.add_(0.4 * torch.randn(parameter.shape))
                else:
                    parameter.copy_(0.3 * torch.randn(parameter.shape))
    return made.eval()


@lru_cache
def chat_model(kind: str) -> ChatModel:
    """The same chat model for every test that only reads it."""
    return load_model(network(kind), tiny.tokenizer())
