"""Refusal tokens: the first tokens of a refusal, known for the paper's families or proposed from the model itself."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from refusal import engine
from refusal.errors import BadSetting, TooFewPrompts
from refusal.extraction import Logits, Prompts, encode
from refusal.model import ChatModel

# (model_type, vocabulary size of the tokenizer's network) → the official code's ids and their texts. The vocabulary
# tells apart families that share a model_type.
PAPER = {
    ("qwen", 151936): ({40: "I", 2121: "As"}, "Qwen"),
    ("llama", 64000): ({59597: "I"}, "Yi"),
    ("gemma", 256000): ({235285: "I"}, "Gemma"),
    ("llama", 32000): ({306: "I"}, "Llama 2"),
    ("llama", 128256): ({40: "I"}, "Llama 3"),
}
MIN_SHARE = 0.02  # a proposed token opens at least this share of harmful prompts' answers…
MIN_RATIO = 10.0  # …and is at least this many times likelier than on harmless prompts


@dataclass(frozen=True)
class RefusalTokens:
    """The tokens whose first-position probability counts as refusing, and why these."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    reason: str

    @property
    def tensor(self) -> Int[Tensor, " t"]:
        """The ids as an index tensor."""
        return torch.tensor(self.ids)

    def record(self) -> dict[str, object]:
        """Return plain values for run.json."""
        return asdict(self)


def find_refusal_tokens(
    model: ChatModel,
    harmful: Prompts,
    harmless: Prompts,
    *,
    given: Sequence[int] = (),
    logits: Logits = engine.last_logits,
) -> RefusalTokens:
    """Return the tokens given by the user, else those of the paper's family, else a proposal from the model's answers.

    A token is proposed when its mean first-token probability is at least 2 % on harmful prompts and ten times that on
    harmless ones; `logits` may be another way to these than passes of their own.
    Raises BadSetting for an id outside the vocabulary, TooFewPrompts when nothing can be proposed.
    """
    if given:
        return _given(model, given)
    config = model.network.config
    family = PAPER.get((config.model_type, config.vocab_size))
    if family and all(model.text(i).strip() == text for i, text in family[0].items()):
        ids, name = family
        return RefusalTokens(
            tuple(ids), tuple(ids.values()), f"the paper's tokens for {name} (Table 4 and official code)"
        )
    return _propose(model, harmful, harmless, logits)


def _given(model: ChatModel, given: Sequence[int]) -> RefusalTokens:
    size = model.network.config.vocab_size
    given = tuple(dict.fromkeys(given))  # a token named twice counts once
    for token in given:
        if not 0 <= token < size:
            raise BadSetting(f"Refusal token {token} is outside the vocabulary: ids run from 0 to {size - 1}.")
    return RefusalTokens(given, tuple(model.text(i) for i in given), "given by the user")


def _propose(model: ChatModel, harmful: Prompts, harmless: Prompts, logits: Logits) -> RefusalTokens:
    p, q = (_first_token_distribution(model, prompts, logits) for prompts in (harmful, harmless))
    ids = [int(i) for i in ((p >= MIN_SHARE) & (p >= MIN_RATIO * q)).nonzero().flatten()]
    if not ids:
        top = ", ".join(f"{model.text(int(i))!r} {p[i]:.0%}" for i in p.topk(3).indices)
        raise TooFewPrompts(
            "No refusal token can be proposed: no first token is common on harmful prompts and rare on harmless ones "
            f"(commonest on harmful: {top}). Set --refusal-tokens, or give prompts that this model refuses."
        )
    ids.sort(key=lambda i: -float(p[i]))
    texts = tuple(model.text(i) for i in ids)
    shares = ", ".join(f"{text!r} {p[i]:.1%} against {q[i]:.1%}" for i, text in zip(ids, texts, strict=True))
    return RefusalTokens(
        tuple(ids),
        texts,
        f"proposed: mean first-token probability on {len(harmful)} harmful against {len(harmless)} harmless prompts is "
        f"{shares} (at least {MIN_SHARE:.0%} and {MIN_RATIO:g} times as likely)",
    )


def _first_token_distribution(model: ChatModel, prompts: Prompts, logits: Logits) -> Float[Tensor, " v"]:
    return logits(model, encode(model, prompts)).double().softmax(-1).mean(0)
