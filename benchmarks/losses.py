"""What cross-entropy costs: ours against Hugging Face at the official batch of two, with the logits of all positions.

Random models of Llama's shape. Chat pairs have about 66 scored tokens and texts, cut to 256 tokens, about 221, as
Alpaca and the Pile have in the recorded official run on Qwen 1.8B. Their lengths are log-normal, as most are short and
a few long; the deviation of 0.8 is our assumption. Both ways tokenize, run and sum within the time that is measured,
in turn; how far their results are apart is in the table, too.

    python benchmarks/losses.py                                               # ~100 M parameters, 32 k and 152 k words
    python benchmarks/losses.py --documents 4096 --kinds pairs texts          # as many as in the paper
    python benchmarks/losses.py --device cuda --shapes 8B --vocabularies 128256 --dtypes bfloat16 --documents 4096
    python benchmarks/losses.py --shapes tiny --vocabularies 500 --documents 8 --rounds 1    # seconds
"""

import argparse
import math
import random
from collections.abc import Sequence

import torch
from sizes import FORMATS, SHAPES, Shape, in_turn, keep, machine, matmul_peak, parser, random_model, table

from refusal import engine
from refusal.losses import TEXT_TOKENS, cross_entropy
from refusal.model import ChatModel

BATCH = 2  # the official code's
LETTERS = "abcdefghijklmnopqrstuvwxyz "
MEAN, DEVIATION = 66, 0.8  # tokens of an answer, and of their logarithm
MEAN_TEXT = 480  # tokens before the cut, which leaves 221


def main() -> None:
    options = arguments()
    print(machine(options.device), "\n")
    results = []
    for name in options.shapes:
        for vocabulary in options.vocabularies:
            for dtype in options.dtypes:
                model = random_model(SHAPES[name], vocabulary, dtype, options.device)
                for kind in options.kinds:
                    results.append(measure(model, SHAPES[name], vocabulary, dtype, kind, options))
                    keep(options.json, {"benchmark": "losses", **results[-1]})
    print(table([{column: row[column] for column in COLUMNS} for row in results]))


COLUMNS = (
    *("model", "documents", "kind", "scored", "plain s", "ours s", "×"),
    *("plain padding", "padding", "plain of peak", "of peak", "loss", "off"),
)


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--shapes", nargs="+", default=["100M"], choices=list(SHAPES))
    made.add_argument("--vocabularies", nargs="+", type=int, default=[32000, 152000])
    made.add_argument("--dtypes", nargs="+", default=["float32"], choices=list(FORMATS))
    made.add_argument("--kinds", nargs="+", default=["pairs"], choices=["pairs", "texts"])
    made.add_argument("--documents", type=int, default=256, help="the paper: 4096")
    return made.parse_args()


def measure(
    model: ChatModel, shape: Shape, vocabulary: int, dtype: str, kind: str, options: argparse.Namespace
) -> dict[str, object]:
    """Time both ways on the same documents."""
    documents = pairs(options.documents) if kind == "pairs" else texts(options.documents)
    found: dict[str, float] = {}
    times = in_turn(
        {
            "plain": lambda: found.update(plain=plain(model, documents)),
            "ours": lambda: found.update(ours=cross_entropy(model, documents).mean),
        },
        options.rounds,
    )
    inputs, loss = encoded(model, documents), cross_entropy(model, documents[:1])
    assert loss.tokens == (inputs[0][1],)
    lengths, scored = [len(row) - 1 for row, _ in inputs], sum(n for _, n in inputs)
    work = shape.flops(0, lengths) + 2 * vocabulary * shape.width * scored
    peak = matmul_peak(shape, dtype, options.device)
    return {
        "model": f"{shape.parameters(vocabulary) / 1e6:.0f} M, {vocabulary} words, {dtype}",
        "documents": len(documents),
        "kind": kind,
        "scored": scored,
        "plain s": times["plain"],
        "ours s": times["ours"],
        "×": times["plain"] / times["ours"],
        "plain padding": padding(lengths, [range(len(lengths))[i : i + BATCH] for i in range(0, len(lengths), BATCH)]),
        "padding": padding(lengths, engine.plan(lengths, budget=engine.budget_of(model, every_logit=True).tokens)),
        "plain of peak": work / times["plain"] / peak,
        "of peak": work / times["ours"] / peak,
        "loss": found["ours"],
        "off": abs(found["ours"] - found["plain"]),
        "peak GFLOP/s": peak / 1e9,
        "rounds": options.rounds,
        "machine": machine(options.device),
    }


@torch.no_grad()
def plain(model: ChatModel, documents: Sequence[str | tuple[str, str]]) -> float:
    """Two documents a pass in the given order, padded on the left, a softmax over the vocabulary everywhere."""
    inputs, device = encoded(model, documents), model.device
    total, count = torch.zeros((), dtype=torch.float64, device=device), 0
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH]
        width = max(len(row) for row, _ in batch)
        ids = torch.tensor([[model.pad_token] * (width - len(row)) + row for row, _ in batch], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row, _ in batch], device=device)
        read = torch.tensor([[0] * (width - 1 - n) + [1] * n for _, n in batch], device=device)
        log_p = model.network(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        total -= (log_p[:, :-1].gather(-1, ids[:, 1:, None])[..., 0] * read).sum()
        count += int(read.sum())
    return float(total) / count


def encoded(model: ChatModel, documents: Sequence[str | tuple[str, str]]) -> list[tuple[list[int], int]]:
    """Return the tokens of every document, and how many of the last are scored."""
    words, found = model.tokenizer, []
    for document in documents:
        if isinstance(document, str):
            tokens = words(document, truncation=True, max_length=TEXT_TOKENS)["input_ids"]
            found.append((tokens, len(tokens) - 1))
        else:
            asked = [{"role": "user", "content": document[0]}]
            prompt = words.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            tokens = words(prompt + document[1], add_special_tokens=False)["input_ids"]
            found.append((tokens, len(words(document[1], add_special_tokens=False)["input_ids"])))
    return found


def pairs(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [(letters(draw, draw.randint(6, 30)), letters(draw, log_normal(draw, MEAN, 1))) for _ in range(count)]


def texts(count: int, *, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [letters(draw, log_normal(draw, MEAN_TEXT, 2)) for _ in range(count)]


def letters(draw: random.Random, length: int) -> str:
    """Draw a text of so many letters, which are as many tokens."""
    return "".join(draw.choices(LETTERS, k=length)).strip() or "x"


def log_normal(draw: random.Random, mean: float, least: int) -> int:
    return max(least, round(draw.lognormvariate(math.log(mean) - DEVIATION**2 / 2, DEVIATION)))


def padding(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Return the share of the tokens that go through the network which is padding."""
    return 1 - sum(lengths) / sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)


if __name__ == "__main__":
    main()
