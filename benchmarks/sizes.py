"""What the speed benchmarks share: random models of Llama's shape, prompts of random letters, timing and output."""

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import linear
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from refusal.model import ChatModel, load_model

# One token behind the words of a user would do for a template; five are as many as the paper's families have.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
AROUND = 6  # tokens of a rendered prompt that are not its letters
POSITIONS = 5  # post-instruction tokens of the template
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Shape:
    """A Llama without its vocabulary."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool = True

    def parameters(self, vocabulary: int) -> int:
        """Count what a token is multiplied with, and the embedding."""
        attention = 2 * self.width**2 * (1 + self.kv_heads / self.heads)
        return int(self.layers * (attention + 3 * self.width * self.inner) + (2 - self.tied) * vocabulary * self.width)

    def flops(self, vocabulary: int, lengths: Sequence[int]) -> float:
        """Return what prompts of some lengths cost without padding, with the logits of their last positions only."""
        weights = self.parameters(0) * sum(lengths) + vocabulary * self.width * len(lengths)
        attention = 2 * self.layers * self.width * sum(n * (n + 1) / 2 for n in lengths)
        return 2 * (weights + attention)


SHAPES = {
    "tiny": Shape(32, 64, 10, 4, 2),
    "30M": Shape(384, 1280, 8, 6, 2),
    "100M": Shape(768, 2560, 12, 12, 4),
    "400M": Shape(1024, 4096, 24, 16, 4),
    "8B": Shape(4096, 14336, 32, 32, 8, tied=False),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and the template's words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_tokens(["assistant"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|pad|>", padding_side="left"
    )
    fast.add_special_tokens({"additional_special_tokens": ["<|start|>"]})
    fast.chat_template = TEMPLATE
    return fast


def random_model(
    shape: Shape, vocabulary: int, dtype: str = "float32", device: str = "cpu", *, seed: int = 0
) -> ChatModel:
    """A chat model of the shape with random weights; the last norm is large enough for its answers to be decided."""
    words = tokenizer()
    config = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        tie_word_embeddings=shape.tied,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        dtype=FORMATS[dtype],
    )
    torch.manual_seed(seed)
    with torch.device(device):
        network = LlamaForCausalLM(config).to(FORMATS[dtype]).requires_grad_(False)
    network.model.norm.weight.fill_(4.0)
    return load_model(network, words)


def random_prompts(count: int, letters: str, *, shortest: int = 12, longest: int = 60, seed: int = 0) -> list[str]:
    """Draw prompts of random letters that are from `shortest` to `longest` tokens when rendered, uniformly."""
    draw = random.Random(seed)
    lengths = [draw.randint(shortest, longest) - AROUND for _ in range(count)]
    return ["".join(draw.choices(letters, k=length)) for length in lengths]


def two_classes(count: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Draw half of the prompts in capital letters, for the harmful ones, and half in small letters."""
    capitals = random_prompts(count // 2, "ABCDEFGHIJKLM", seed=seed)
    return capitals, random_prompts(count // 2, "nopqrstuvwxyz", seed=seed + 1)


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes, what it left to a GPU included."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time every work once a round, in turn, and return the median of each."""
    times = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds)]
    return {name: median(found[name] for found in times) for name in works}


def matmul_peak(shape: Shape, dtype: str, device: str, *, repeats: int = 5) -> float:
    """Return the most operations a second that a product of matrices reaches here: the model's own, and a square."""
    rows, side = (512, 1024) if device == "cpu" else (8192, 8192)
    best = 0.0
    for m, k, n in ((rows, shape.width, shape.inner), (rows, shape.inner, shape.width), (side, side, side)):
        x, w = (torch.randn(size, k, dtype=FORMATS[dtype], device=device) for size in (m, n))
        linear(x, w)
        again = max(1, int(1e9 / (2 * m * k * n)))
        fastest = min(seconds(lambda: [linear(x, w) for _ in range(again)]) for _ in range(repeats))  # noqa: B023
        best = max(best, again * 2 * m * k * n / fastest)
    return best


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Lay rows with the same keys out in Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every one of these benchmarks can be told."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=3, help="everything is timed in turn so often; medians are given")
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    made.add_argument("--json", type=Path, help="append every result to this file, a JSON object a line")
    return made


def machine(device: str) -> str:
    """Say what the numbers were measured on."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    load = os.getloadavg()[0]
    threads = torch.get_num_threads()
    many = f"{os.cpu_count()} cores, {threads} threads, load {load:.2f} at the start"
    return f"Machine: {name}, {many}; torch {torch.__version__}."


def keep(path: Path | None, record: Mapping[str, object]) -> None:
    """Append a result to the file, if there is one."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
