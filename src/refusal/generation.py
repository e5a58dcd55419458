"""Greedy batched completions of a chat model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from refusal import engine
from refusal.extraction import Prompts, encode
from refusal.model import ChatModel
from refusal.prompts import Prompt

MAX_NEW_TOKENS = 512  # the official code's
ROWS = 64  # prompts generated together


@dataclass(frozen=True)
class Completion:
    """What a model answered to one prompt."""

    prompt: str
    response: str
    category: str | None = None
    tokens: int = 0  # generated, the end-of-sequence token included
    finished: bool = True  # the model ended its answer by itself

    def record(self) -> dict[str, object]:
        """Return plain values for a completions file."""
        return asdict(self)


def generate(
    model: ChatModel,
    prompts: Prompts,
    *,
    max_new_tokens: int | None = None,
    skip: Mapping[int, Completion] | None = None,
    report: Callable[[dict[int, Completion]], None] | None = None,
) -> list[Completion]:
    """Complete every prompt greedily until the model ends its answer, in the given order (paper section 2.5).

    An answer is at most `max_new_tokens` long: by default what the checkpoint's generation config says, else 512.
    Interventions that are active around the call act on prompt and generated tokens. `skip` holds completions already
    known by index, and `report` is called with every finished batch, so that a caller can keep and resume work; batches
    do not depend on what is skipped.
    """
    done = dict(skip or {})
    encoded, settings = encode(model, prompts), _greedy(model, max_new_tokens)

    def run(batch: list[int]) -> None:
        if all(i in done for i in batch):
            return
        outputs = _complete(model, [encoded[i] for i in batch], settings)
        new = {i: _completion(model, prompts[i], tokens, settings) for i, tokens in zip(batch, outputs, strict=True)}
        done.update(new)
        if report:
            report(new)

    engine.for_each_batch(encoded, run, rows=ROWS, padding=model.architecture.padding)
    return [done[i] for i in range(len(prompts))]


def greedy_tokens(model: ChatModel, prompts: Prompts, *, max_new_tokens: int | None = None) -> list[list[int]]:
    """Return the tokens of every greedy answer, its end-of-sequence token included, in the given order."""
    encoded, settings = encode(model, prompts), _greedy(model, max_new_tokens)
    found: dict[int, list[int]] = {}

    def run(batch: list[int]) -> None:
        outputs = _complete(model, [encoded[i] for i in batch], settings)
        found.update((i, _answer(tokens, settings)[0]) for i, tokens in zip(batch, outputs, strict=True))

    engine.for_each_batch(encoded, run, rows=ROWS, padding=model.architecture.padding)
    return [found[i] for i in range(len(prompts))]


def _greedy(model: ChatModel, max_new_tokens: int | None) -> GenerationConfig:
    """Keep the model's own end-of-sequence tokens (the official runs lost them) and drop its sampling settings."""
    own = model.network.generation_config or GenerationConfig()
    eos = own.eos_token_id if own.eos_token_id is not None else model.tokenizer.eos_token_id
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens or own.max_new_tokens or MAX_NEW_TOKENS,
        bos_token_id=own.bos_token_id,
        eos_token_id=[eos] if isinstance(eos, int) else eos,
        pad_token_id=model.pad_token,
    )


@torch.no_grad()
def _complete(model: ChatModel, tokens: Sequence[Sequence[int]], settings: GenerationConfig) -> list[list[int]]:
    ids, mask, _ = (x.to(model.device) for x in engine.pad(tokens, model.pad_token))
    network: Any = model.network
    own, network.generation_config = network.generation_config, settings  # what `settings` leaves open comes from there
    try:
        output = network.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    finally:
        network.generation_config = own
    return output[:, ids.shape[1] :].tolist()


def _completion(model: ChatModel, prompt: Prompt | str, tokens: list[int], settings: GenerationConfig) -> Completion:
    answer, finished = _answer(tokens, settings)
    text = str(model.tokenizer.decode(answer, skip_special_tokens=True)).strip()
    instruction, category = (prompt, None) if isinstance(prompt, str) else (prompt.instruction, prompt.category)
    return Completion(instruction, text, category, len(answer), finished)


def _answer(tokens: list[int], settings: GenerationConfig) -> tuple[list[int], bool]:
    """Cut off the padding behind an answer, and say whether the model ended it by itself."""
    ends = [i for i, token in enumerate(tokens) if token in (settings.eos_token_id or ())]
    return (tokens[: ends[0] + 1], True) if ends else (tokens, False)
