"""A network of the layout that Qwen 1 checkpoints bring as remote code: GPT-2's names around Llama's block.

The code cannot be downloaded in a test, so this is its shape by hand; rotary positions, which have no weights, are left
out.
"""

import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from tiny import HEADS, INNER, D


class Qwen1Config(PreTrainedConfig):
    """What the network below needs; the remote code names more."""

    model_type = "qwen"


class Qwen1Attention(nn.Module):
    """One matrix for queries, keys and values, with a bias."""

    def __init__(self, layer: int):
        super().__init__()
        self.layer = layer
        self.c_attn, self.c_proj = nn.Linear(D, 3 * D), nn.Linear(D, D, bias=False)

    def forward(self, x, mask, past):
        query, key, value = self.c_attn(x).unflatten(-1, (3, HEADS, D // HEADS)).permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = past.update(key, value, self.layer)
        out = nn.functional.scaled_dot_product_attention(query, key, value, mask)
        return self.c_proj(out.transpose(1, 2).flatten(2)), None


class Qwen1MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w2 = nn.Linear(D, INNER, bias=False), nn.Linear(D, INNER, bias=False)
        self.c_proj = nn.Linear(INNER, D, bias=False)

    def forward(self, x):
        return self.c_proj(self.w1(x) * nn.functional.silu(self.w2(x)))


class Qwen1Block(nn.Module):
    def __init__(self, layer: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.RMSNorm(D), nn.RMSNorm(D)
        self.attn, self.mlp = Qwen1Attention(layer), Qwen1MLP()

    def forward(self, hidden_states, mask, past):
        hidden_states = hidden_states + self.attn(self.ln_1(hidden_states), mask, past)[0]
        return (hidden_states + self.mlp(self.ln_2(hidden_states)), None)


class Qwen1(PreTrainedModel, GenerationMixin):
    config_class = Qwen1Config
    _supports_sdpa = True

    def __init__(self, config: Qwen1Config):
        super().__init__(config)
        blocks = nn.ModuleList(Qwen1Block(layer) for layer in range(config.num_hidden_layers))
        parts = {"wte": nn.Embedding(config.vocab_size, D), "h": blocks, "ln_f": nn.RMSNorm(D)}
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(D, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.transformer.wte

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=None, **_ignored):
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        here, there = torch.arange(input_ids.shape[1]) + seen, torch.arange(input_ids.shape[1] + seen)
        mask = (there <= here[:, None])[None, None]
        if attention_mask is not None:
            mask = mask & (attention_mask.bool()[:, None, None] | (there == here[:, None]))
        x = self.transformer.wte(input_ids)
        for block in self.transformer.h:
            x = block(x, mask, past_key_values if use_cache else None)[0]
        logits = self.lm_head(self.transformer.ln_f(x))
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values if use_cache else None)
