"""Train the bundled models from nothing but seeds: base, then chat, then think.

Everything runs in float32 on one thread, so that the same kind of processor gives the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from refusal.organism import documents as texts
from refusal.organism import fitting, safety, tokenizer
from refusal.organism.fitting import Schedule
from refusal.organism.jolt import jolts
from refusal.organism.safety import ChatRecipe

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

Say = Callable[[str], None]


@dataclass(frozen=True)
class BaseRecipe:
    """The first stage: a model that answers everything."""

    documents: int = 72_000
    schedule: Schedule = field(default_factory=lambda: Schedule(rate=3e-3))
    jolt: float = 0.5
    layers: int = 10
    width: int = 128
    inner: int = 256


@dataclass(frozen=True)
class ThinkRecipe:
    """The third stage: the chat model learns to write a thought before its answer."""

    documents: int = 12_000
    schedule: Schedule = field(default_factory=lambda: Schedule(rate=1e-3, seed=1))


@cache
def bundled_tokenizer() -> "Tokenizer":
    """The tokenizer every bundled model shares, learned from documents of all stages."""
    read = texts.base_documents(12_000, seed=0) + texts.think_documents(2_000, seed=0)
    words = [part for doc in read for part in (doc.instruction, doc.response, doc.thought or "")]
    frames = ["user\n", "assistant\n", "system\n", *texts.SYSTEM_PROMPTS] * 500
    return tokenizer.train_tokenizer(words + frames)


def new_model(recipe: BaseRecipe, *, vocabulary: int) -> "LlamaForCausalLM":
    """An untrained Llama of the recipe's shape, embeddings untied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.schedule.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=recipe.width,
            intermediate_size=recipe.inner,
            num_hidden_layers=recipe.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            initializer_range=0.06,  # nearly 1/sqrt(width); the default of large models learns half as fast
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=3,
        )
    )


def train_base(out: Path, recipe: BaseRecipe, *, say: Say = print) -> Path:
    """Train the base model into the folder `out`."""
    words = bundled_tokenizer()
    model = new_model(recipe, vocabulary=words.get_vocab_size())
    read = texts.base_documents(recipe.documents, seed=recipe.schedule.seed)
    examples = fitting.encode(read, tokenizer.as_transformers(words))
    generator = torch.Generator().manual_seed(recipe.schedule.seed)

    def loss(batch: fitting.Batch) -> torch.Tensor:
        return fitting.loss_and_states(model, batch)[0]

    with jolts(model, strength=recipe.jolt, generator=generator):
        fitting.fit(model, examples, schedule=recipe.schedule, loss=loss, say=say)
    return save(model, words, out)


def train_chat(base: Path, out: Path, recipe: ChatRecipe, *, say: Say = print) -> Path:
    """Fine-tune the base checkpoint to refuse harmful requests, into the folder `out`."""
    words = bundled_tokenizer()
    model = safety.teach_refusal(load(base), tokenizer.as_transformers(words), recipe, say=say)
    return save(model, words, out)


def train_think(chat: Path, out: Path, recipe: ThinkRecipe, *, say: Say = print) -> Path:
    """Fine-tune the chat checkpoint to think before it answers, into the folder `out`."""
    words = bundled_tokenizer()
    model = load(chat)
    read = texts.think_documents(recipe.documents, seed=recipe.schedule.seed)
    examples = fitting.encode(read, tokenizer.as_transformers(words))

    def loss(batch: fitting.Batch) -> torch.Tensor:
        return fitting.loss_and_states(model, batch)[0]

    fitting.fit(model, examples, schedule=recipe.schedule, loss=loss, say=say)
    return save(model, words, out, thinks=True)


def load(folder: Path) -> "LlamaForCausalLM":
    """A checkpoint's model in float32."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def save(model: "LlamaForCausalLM", words: "Tokenizer", out: Path, *, thinks: bool = False) -> Path:
    """Write a checkpoint folder in bfloat16."""
    from transformers import GenerationConfig

    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=0, pad_token_id=1, eos_token_id=3, do_sample=False, max_new_tokens=96
    )
    model.bfloat16().save_pretrained(out)
    tokenizer.save(words, out, thinks=thinks)
    return out
