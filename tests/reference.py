"""An independent reading of the paper: one prompt at a time, plain loops, no hooks, no batches.

Shares nothing with the package's science modules: its own forward pass over the Hugging Face modules of a Llama, with
the residual additions written out, so that ablation (eq. 4) and addition (eq. 3) are lines of the loop.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Plain:
    """A Llama with its tokenizer, and what is done to its residual stream."""

    network: torch.nn.Module
    tokenizer: object
    ablated: Tensor | None = None  # any length
    added: Tensor | None = None
    added_at: int = -1

    def clean(self, x: Tensor) -> Tensor:
        if self.ablated is None:
            return x
        r = self.ablated / self.ablated.norm()
        return (x.double() - (x.double() @ r)[:, None] * r).to(x.dtype)

    @torch.no_grad()
    def forward(self, tokens: list[int]) -> tuple[list[Tensor], Tensor]:
        """The input of every block `s d`, and the logits behind the last token."""
        body = self.network.model
        x = body.embed_tokens(torch.tensor(tokens))
        rotary = body.rotary_emb(x[None], torch.arange(len(tokens))[None])
        inputs = []
        for number, layer in enumerate(body.layers):
            if number == self.added_at:
                x = (x.double() + self.added).to(x.dtype)
            x = self.clean(x)
            inputs.append(x)
            normed = layer.input_layernorm(x)[None]
            x = self.clean(x + layer.self_attn(normed, position_embeddings=rotary, attention_mask=None)[0][0])
            x = self.clean(x + layer.mlp(layer.post_attention_layernorm(x)))
        return inputs, self.network.lm_head(body.norm(x[-1:]))[0].double()

    def encode(self, instruction: str) -> list[int]:
        text = f"<|begin|><|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"
        return self.tokenizer.encode(text, add_special_tokens=False)


def log_odds(logits: Tensor, refusal: list[int]) -> float:
    p = float(logits.softmax(-1)[refusal].sum())
    return math.log(p + 1e-8) - math.log(1 - p + 1e-8)


def divergence(before: Tensor, after: Tensor) -> float:
    p, q = before.softmax(-1), after.softmax(-1)
    return float((p * torch.log((p + 1e-6) / (q + 1e-6))).sum())


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def keep(plain: Plain, prompts: list[str], refusal: list[int], *, refused: bool) -> list[str]:
    scores = [log_odds(plain.forward(plain.encode(prompt))[1], refusal) for prompt in prompts]
    return [p for p, score in zip(prompts, scores, strict=True) if (score > 0 if refused else score < 0)]


def class_mean(plain: Plain, prompts: list[str], n_positions: int) -> Tensor:
    """The mean of the blocks' inputs at the last positions, `p l d` in float64."""
    total = 0
    for prompt in prompts:
        inputs, _ = plain.forward(plain.encode(prompt))
        total = total + torch.stack([x[-n_positions:].double() for x in inputs], dim=1)
    return total / len(prompts)


def last_logits(plain: Plain, prompts: list[str]) -> list[Tensor]:
    return [plain.forward(plain.encode(prompt))[1] for prompt in prompts]


def scores(plain: Plain, r: Tensor, layer: int, harmful: list[str], harmless: dict[str, Tensor], refusal: list[int]):
    """Bypass, induce and KL of one candidate (section 2.3); nothing is done in `plain`; `harmless` holds its logits."""
    without = Plain(plain.network, plain.tokenizer, ablated=r)
    added = Plain(plain.network, plain.tokenizer, added=r, added_at=layer)
    bypass = mean([log_odds(row, refusal) for row in last_logits(without, harmful)])
    induce = mean([log_odds(row, refusal) for row in last_logits(added, [*harmless])])
    pairs = zip(harmless.values(), last_logits(without, [*harmless]), strict=True)
    return bypass, induce, mean([divergence(before, after) for before, after in pairs])


def choice(rows: list[tuple[int, int, float, float, float]], n_layers: int, *, max_kl: float, min_induce: float):
    """The official code's rule on (position, layer, bypass, induce, kl): position and layer, or None."""
    best = None
    for position, layer, bypass, induce, kl in rows:
        if layer >= int(n_layers * 0.8) or kl > max_kl or induce < min_induce or math.isnan(bypass + induce + kl):
            continue
        if best is None or bypass < best[0]:
            best = (bypass, position, layer)
    return best and (best[1], best[2])
