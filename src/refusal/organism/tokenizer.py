"""The tokenizer of the bundled models: byte-level BPE and a ChatML-like template, as Hugging Face files."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 2048
BOS, PAD, START, END = "<|begin|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
THINK, UNTHINK = "<think>", "</think>"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As in Qwen3: with thinking switched off the generation prompt holds an empty thought.
THINK_TEMPLATE = CHAT_TEMPLATE.removesuffix("{% endif %}") + (
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int = VOCABULARY) -> Tokenizer:
    """Learn the merges from texts; the same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in (THINK, UNTHINK)])
    return tokenizer


def as_transformers(tokenizer: Tokenizer, *, thinks: bool = False) -> "PreTrainedTokenizerFast":
    """The tokenizer as Hugging Face knows it, with its chat template (of the thinking model if asked)."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        chat_template=THINK_TEMPLATE if thinks else CHAT_TEMPLATE,
    )


def save(tokenizer: Tokenizer, folder: Path, *, thinks: bool = False) -> None:
    """Write the tokenizer's files into a checkpoint folder, readable by transformers 4 and 5."""
    as_transformers(tokenizer, thinks=thinks).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 5 writes a name that 4 refuses
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
