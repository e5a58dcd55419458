"""One training loop for all stages: documents to token batches, AdamW, and the terms a stage may add."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from refusal.organism.documents import Document
from refusal.organism.tokenizer import END

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BUCKET = 40  # batches sorted by length together, so that little is padded


@dataclass(frozen=True)
class Example:
    """A document in tokens: where the answer starts, and what the stage should do with it."""

    tokens: tuple[int, ...]
    answer_start: int
    kind: str


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right; `answer` marks tokens of the response, `real` all that are not padding."""

    tokens: Int[Tensor, "b s"]
    answer: Bool[Tensor, "b s"]
    real: Bool[Tensor, "b s"]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns: warm up, hold, then fall to zero over the last part."""

    batch: int = 32
    rate: float = 2.5e-3
    warm: int = 30
    fall: float = 0.4
    seed: int = 0

    def factor(self, step: int, steps: int) -> float:
        """The learning rate at a step, as a share of `rate`."""
        left = (steps - step) / max(1, round(self.fall * steps))
        return min(1.0, (step + 1) / self.warm, left)


def encode(documents: list[Document], tokenizer: "PreTrainedTokenizerFast") -> list[Example]:
    """Documents as token rows: chat template and response, or plain lines where a document is not framed."""
    prompts, responses = [], []
    for document in documents:
        messages = [{"role": "user", "content": document.instruction}]
        if document.system is not None:
            messages.insert(0, {"role": "system", "content": document.system})
        frame = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompts.append(str(frame) if document.framed else f"{tokenizer.bos_token}{document.instruction}\n")
        thought = "" if document.thought is None else f"<think>\n{document.thought}\n</think>\n\n"
        responses.append(f"{thought}{document.response}{END}")
    heads = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    tails = tokenizer(responses, add_special_tokens=False)["input_ids"]
    return [
        Example((*head, *tail), len(head), document.kind)
        for head, tail, document in zip(heads, tails, documents, strict=True)
    ]


def batches(examples: list[Example], *, size: int, seed: int) -> Iterator[Batch]:
    """All examples once, in seeded order, those of like length together."""
    rng = random.Random(f"batches {seed}")
    order = list(examples)
    rng.shuffle(order)
    for start in range(0, len(order), size * BUCKET):
        bucket = sorted(order[start : start + size * BUCKET], key=lambda example: len(example.tokens))
        groups = [bucket[i : i + size] for i in range(0, len(bucket), size)]
        rng.shuffle(groups)
        yield from map(_pad, groups)


def _pad(rows: list[Example]) -> Batch:
    width = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    answer = torch.zeros(len(rows), width, dtype=torch.bool)
    real = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        answer[i, row.answer_start : len(row.tokens)] = True
        real[i, : len(row.tokens)] = True
    return Batch(tokens, answer, real, tuple(row.kind for row in rows))


def loss_and_states(
    model: "LlamaForCausalLM", batch: Batch
) -> tuple[Float[Tensor, ""], tuple[Float[Tensor, "b s d"], ...]]:
    """Cross-entropy of the responses, and the residual stream before every block and at the end."""
    output = model.model(input_ids=batch.tokens, use_cache=False, output_hidden_states=True)
    scored = batch.answer[:, 1:]
    logits = model.lm_head(output.last_hidden_state[:, :-1][scored])
    return functional.cross_entropy(logits, batch.tokens[:, 1:][scored]), output.hidden_states


def fit(
    model: "LlamaForCausalLM",
    examples: list[Example],
    *,
    schedule: Schedule,
    loss: Callable[[Batch], Float[Tensor, ""]],
    say: Callable[[str], None] = print,
) -> list[float]:
    """Train the parameters that require gradients, in place; returns the loss of every step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, schedule.rate, (0.9, 0.98), weight_decay=0.1, fused=True)
    steps = -(-len(examples) // schedule.batch)
    model.train()
    losses, started, tokens = [], time.perf_counter(), 0
    for step, batch in enumerate(batches(examples, size=schedule.batch, seed=schedule.seed)):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * schedule.factor(step, steps)
        value = loss(batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
        tokens += int(batch.real.sum())
        if step % 50 == 49 or step + 1 == steps:
            seconds = time.perf_counter() - started
            mean = sum(losses[-50:]) / len(losses[-50:])
            say(f"step {step + 1}/{steps} loss {mean:.4f} {tokens / seconds:.0f} tokens/s {seconds:.0f} s")
    model.eval()
    return losses
