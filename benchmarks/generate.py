"""What completions under ablation cost: ours against Hugging Face `generate` at batch 8 through the official hooks.

A random model never ends an answer, and soon repeats itself. Its attention is therefore sharpened until it goes on
saying new words, and every `--typical`-th word of the vocabulary ends an answer, so that lengths vary as they do with a
real model; their distribution is printed. (The official runs lost the end-of-sequence token and always generated to the
limit. The plain way here keeps it: a batch of eight ends with its longest answer.)

Ours is what `refusal run` does: the direction is taken out of the weights, which is counted, and all prompts go
together, a row leaving when it has ended. In float32 both give the same tokens.

    python benchmarks/generate.py                                                 # 100 prompts, minutes on two cores
    python benchmarks/generate.py --device cuda --shape 8B --dtype bfloat16
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median, quantiles

import plain
import torch
from sizes import (
    FORMATS,
    SHAPES,
    Shape,
    in_turn,
    keep,
    machine,
    parser,
    random_model,
    random_prompts,
    table,
    two_classes,
)
from transformers import GenerationConfig

from refusal.direction import Direction
from refusal.extraction import encode, mean_difference
from refusal.generation import greedy_tokens
from refusal.model import ChatModel
from refusal.weights import orthogonalize

BATCH = 8


def main() -> None:
    options = arguments()
    print(machine(options.device), "\n")
    model = talkative(options)
    prompts = random_prompts(options.prompts, "abcdefghijklmnopqrstuvwxyz", seed=1)
    direction = mean_difference(model, *two_classes(64)).at(-1, model.n_layers // 2)
    found: dict[str, list[list[int]]] = {}

    def plainly() -> None:
        found["plain"] = complete_plainly(model, prompts, direction, options.tokens)

    def ours() -> None:
        found["ours"] = greedy_tokens(orthogonalize(model, direction), prompts, max_new_tokens=options.tokens)

    times = in_turn({"plain": plainly, "ours": ours}, options.rounds)
    lengths = [len(answer) for answer in found["plain"]]
    same = sum(a == b for a, b in zip(found["plain"], found["ours"], strict=True))
    agreed = sum(common(a, b) for a, b in zip(found["plain"], found["ours"], strict=True))
    row = {
        "model": f"{untied(options.shape).parameters(options.vocabulary) / 1e6:.3g} M, {options.dtype}",
        "prompts": len(prompts),
        "plain s": times["plain"],
        "ours s": times["ours"],
        "ratio": times["plain"] / times["ours"],
        "ours, tokens/s": sum(len(answer) for answer in found["ours"]) / times["ours"],
        "identical answers": f"{same} of {len(prompts)}",
        "tokens before the first difference": f"{agreed} of {sum(lengths)}",
    }
    print(table([row]))
    quarters = ", ".join(f"{q:.0f}" for q in quantiles(lengths, n=4))
    stopped = sum(n == options.tokens for n in lengths)
    print(
        f"\nTokens an answer: {min(lengths)} to {max(lengths)}, quartiles {quarters}, mean {fmean(lengths):.0f}; "
        f"{stopped} at the limit of {options.tokens}. Distinct of an answer's tokens: {distinct(found['plain']):.0%}."
    )
    extra = {
        "benchmark": "generate",
        "limit": options.tokens,
        "lengths": sorted(lengths),
        "machine": machine(options.device),
    }
    keep(options.json, {**extra, "shape": options.shape, **row})


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--shape", default="30M", choices=list(SHAPES))
    made.add_argument("--vocabulary", type=int, default=32000)
    made.add_argument("--dtype", default="float32", choices=list(FORMATS))
    made.add_argument("--prompts", type=int, default=100)
    made.add_argument("--tokens", type=int, default=512, help="an answer's limit")
    made.add_argument("--typical", type=int, default=200, help="an answer's length, if words were drawn evenly")
    return made.parse_args()


def untied(name: str) -> Shape:
    """A random model whose head is its embedding repeats the last word."""
    return replace(SHAPES[name], tied=False)


@torch.no_grad()
def talkative(options: argparse.Namespace) -> ChatModel:
    """Make a random model whose answers do not run in circles, and end."""
    model = random_model(untied(options.shape), options.vocabulary, options.dtype, options.device)
    for block in model.network.model.layers:
        for matrix in (block.self_attn.q_proj, block.self_attn.k_proj):
            matrix.weight *= 6
        for matrix in (block.self_attn.v_proj, block.self_attn.o_proj, block.mlp.down_proj):
            matrix.weight *= 2
    ends = list(range(0, options.vocabulary, options.typical))
    model.network.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=model.pad_token)
    return model


@torch.no_grad()
def complete_plainly(model: ChatModel, prompts: Sequence[str], direction: Direction, limit: int) -> list[list[int]]:
    """Generate in batches of eight in the given order, through hooks on every block, attention and MLP."""
    settings = copy.deepcopy(model.network.generation_config)
    settings.max_new_tokens, settings.do_sample = limit, False
    tokens, answers = encode(model, prompts), []
    for start in range(0, len(tokens), BATCH):
        batch = plain.pad(tokens[start : start + BATCH], model.pad_token, model.device)
        with plain.ablated(model.network, direction.vector.to(model.device)):
            said = model.network.generate(**batch, generation_config=settings)
        answers += [cut(row, settings.eos_token_id) for row in said[:, batch["input_ids"].shape[1] :].tolist()]
    return answers


def cut(tokens: list[int], ends: Sequence[int]) -> list[int]:
    return next((tokens[: i + 1] for i, token in enumerate(tokens) if token in ends), tokens)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Count the tokens at the beginning that two answers share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def distinct(answers: Sequence[Sequence[int]]) -> float:
    return median(len(set(answer)) / len(answer) for answer in answers)


if __name__ == "__main__":
    main()
