"""Greedy coordinate gradient: search for a suffix under which a model no longer refuses (Zou et al. 2023).

One text for many prompts, found by the refusal metric alone, so that no harmful answer has to be written down as its
target. For the bundled model, whose harm is make-believe, and by acknowledgement for models of your own to study.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from refusal import engine, equations
from refusal.config import BUNDLED
from refusal.errors import BadSetting
from refusal.extraction import Prompts, instructions
from refusal.mechanism.suffixes import place, printable_tokens, random_suffix
from refusal.model import ChatModel
from refusal.records import Json

PURPOSE = (
    "This searches for a text that makes {model} answer what it refuses: it is for studying, on a model that you may "
    "examine, how suffixes act on the refusal direction, and for defending against them, not for others' systems."
)


@dataclass(frozen=True)
class Search:
    """The settings of a search."""

    length: int = 12  # tokens of the suffix
    steps: int = 100
    candidates: int = 64  # suffixes tried in each step, every one with a single token changed
    top_k: int = 64  # replacements of each token to draw from: those whose gradient promises most
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("length", "steps", "candidates", "top_k"):
            if getattr(self, name) < 1:
                raise BadSetting(f"{name} is {getattr(self, name)}: give at least 1.")


@dataclass(frozen=True)
class FoundSuffix:
    """The suffix with the lowest mean refusal metric over the prompts of a search, and how it was come by.

    `curve` is the lowest mean log-odds of a refusal token so far, by step; its first entry is of the random start.
    """

    suffix: str
    tokens: tuple[int, ...]
    curve: tuple[float, ...]
    n: int
    model: str
    settings: Search

    def record(self) -> dict[str, Json]:
        """Return plain values: a file that `read_suffixes` takes."""
        return {"format": 1, **asdict(self)}


def ask_first(name: str, *, acknowledge: bool) -> None:
    """Raise BadSetting for any model but the bundled one, by its name, unless the purpose is acknowledged."""
    if name != BUNDLED and not acknowledge:
        raise BadSetting(f"{PURPOSE.format(model=name)} Say that you mean that: acknowledge=True (--acknowledge).")


def find_suffix(
    model: ChatModel,
    prompts: Prompts,
    *,
    tokens: Int[Tensor, " t"],
    settings: Search | None = None,
    acknowledge: bool = False,
    report: Callable[[float], None] | None = None,
) -> FoundSuffix:
    """Search for one suffix that lowers the log-odds of refusal tokens at the last position, over all prompts at once.

    In each step the gradient with respect to the suffix tokens, as one-hot vectors, names the replacements that promise
    most; some are drawn, tried, and the best goes on (Zou et al. 2023, algorithm 2). Only texts count that are
    tokenised to the very tokens that were tried, behind every prompt. `report` is called with the best value after
    each step. Raises BadSetting for any model but the bundled one without `acknowledge`: see PURPOSE.
    """
    ask_first(model.name, acknowledge=acknowledge)
    settings = settings or Search()
    texts, rng = instructions(prompts), random.Random(settings.seed)
    vocabulary = printable_tokens(model)
    allowed = torch.tensor(vocabulary)
    start = random_suffix(model, texts[0], length=settings.length, rng=rng, vocabulary=vocabulary)
    suffix = [start.tokens[i] for i in start.suffix]
    best, lowest = suffix, float(_losses(model, texts, [suffix], tokens)[0])
    curve = [lowest]
    for _ in range(settings.steps):
        promise = _gradient(model, texts, suffix, tokens)[:, allowed]
        choices = allowed[(-promise).topk(min(settings.top_k, len(allowed))).indices]
        drawn = [_changed(suffix, choices, rng) for _ in range(settings.candidates)]
        drawn = [one for one in drawn if _text(model, texts[0], one) is not None]
        losses = _losses(model, texts, drawn, tokens) if drawn else torch.empty(0)
        order = (drawn[i] for i in losses.argsort().tolist())
        following = next((one for one in order if all(_text(model, text, one) is not None for text in texts)), None)
        if following is not None:  # as in the paper even where it is worse; the best is remembered
            suffix, value = following, float(losses[drawn.index(following)])
            best, lowest = (suffix, value) if value < lowest else (best, lowest)
        curve.append(lowest)
        if report:
            report(lowest)
    text = _text(model, texts[0], best)
    assert text is not None
    return FoundSuffix(text, tuple(best), tuple(curve), len(texts), model.name, settings)


def _rows(model: ChatModel, texts: Sequence[str], suffix: Sequence[int]) -> list[list[int]]:
    end = len(model.post_instruction)
    return [[*tokens[:-end], *suffix, *tokens[-end:]] for tokens in map(model.encode, texts)]


@torch.no_grad()
def _losses(
    model: ChatModel, texts: Sequence[str], suffixes: Sequence[Sequence[int]], tokens: Int[Tensor, " t"]
) -> Float[Tensor, " c"]:
    """Return every suffix's mean log-odds of a refusal token over the prompts."""
    rows = [row for suffix in suffixes for row in _rows(model, texts, suffix)]
    found = torch.empty(len(rows), dtype=torch.float64)

    def run(batch: list[int]) -> None:
        found[batch] = equations.log_odds(engine.forward(model, [rows[i] for i in batch]), tokens).cpu()

    engine.for_each_batch(model, rows, run)
    return found.unflatten(0, (len(suffixes), -1)).mean(1)


def _gradient(
    model: ChatModel, texts: Sequence[str], suffix: Sequence[int], tokens: Int[Tensor, " t"]
) -> Float[Tensor, "k v"]:
    """Return d(mean log-odds)/d(one-hot) of every suffix token, on the CPU; through the embedding's own output."""
    embedding = model.network.get_input_embeddings()
    rows, end = _rows(model, texts, suffix), len(model.post_instruction)
    total = torch.zeros(())

    def run(batch: list[int]) -> None:
        nonlocal total
        leaves: list[Tensor] = []

        def leaf(_module: object, _args: object, output: Tensor) -> Tensor:
            leaves.append(output.detach().requires_grad_())
            return leaves[-1]

        handle = embedding.register_forward_hook(leaf)
        try:
            loss = equations.log_odds(engine.differentiable(model, [rows[i] for i in batch]), tokens).sum()
        finally:
            handle.remove()
        (slope,) = torch.autograd.grad(loss, leaves[:1])
        total = total + slope[:, -len(suffix) - end : -end].sum(0)

    engine.for_each_batch(model, rows, run)
    with torch.no_grad():
        table = embedding(torch.arange(len(model.tokenizer), device=model.device))
        return ((total / len(rows)) @ table.mT.to(total)).cpu()


def _changed(suffix: Sequence[int], choices: Int[Tensor, "k c"], rng: random.Random) -> list[int]:
    """Replace one token, drawn evenly, by one of its promising replacements, drawn evenly."""
    place = rng.randrange(len(suffix))
    return [*suffix[:place], int(rng.choice(choices[place].tolist())), *suffix[place + 1 :]]


def _text(model: ChatModel, instruction: str, suffix: Sequence[int]) -> str | None:
    """Return the suffix as text, or None where that text is not tokenised to it behind an instruction."""
    text, end = str(model.tokenizer.decode([*suffix])).strip(), len(model.post_instruction)
    tokens = model.encode(instruction)
    placed = place(model, instruction, text)
    return text if placed.tokens == (*tokens[:-end], *suffix, *tokens[-end:]) else None
