"""Texts and question-answer pairs that a loss is measured on: the official ones, the bundled language's, or a file."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from refusal.config import BUNDLED
from refusal.errors import BadInput, Unavailable
from refusal.prompts.files import read_prompt_file

DOCUMENTS = 4096  # of the Pile and of Alpaca, in the official runs
PILE, ALPACA = "monology/pile-uncopyrighted", "tatsu-lab/alpaca"  # as in the official code
UNSEEN = 10_007  # seed of bundled texts; the training stages use 0 to 9
Pair = tuple[str, str]
COLUMNS = (("instruction", "output"), ("prompt", "response"))  # Alpaca's, and those of saved completions


@dataclass(frozen=True)
class Corpus:
    """Plain texts, or pairs of an instruction and its answer, and where they come from."""

    name: str
    documents: tuple[str | Pair, ...] = field(repr=False)
    source: str
    licence: str | None = None

    def record(self) -> dict[str, Any]:
        """Describe the corpus for run.json."""
        return {"name": self.name, "n": len(self.documents), "source": self.source, "licence": self.licence}


def load_texts(name: str, *, n: int = DOCUMENTS) -> Corpus:
    """Return the first `n` plain texts of "pile", of "organism" (the bundled language), or of a file.

    The Pile is streamed from the Hub in its own order (paper section G.3). In a `.txt` file empty lines stand between
    texts; of the other kinds of prompt files a text is a row, of a column that stands behind the path:
    `pile.jsonl:text`. Raises BadInput for a file that cannot be used, Unavailable without network or `datasets`.
    """
    if name == "pile":
        rows = (row["text"] for row in _from_hub(PILE, streaming=True))
        return Corpus(name, tuple(islice(rows, n)), f"huggingface.co/datasets/{PILE}")
    if name == BUNDLED:
        from refusal.organism.documents import base_documents

        documents = (f"{d.instruction}\n{d.response}" for d in base_documents(n, seed=UNSEEN))
        return Corpus(name, tuple(documents), "the bundled language, as its base model reads it", "Apache-2.0")
    path, column = _path_and_column(name)
    return Corpus(path.name, tuple(read_texts(path, column=column, n=n)), str(path))


def load_pairs(name: str, *, n: int = DOCUMENTS) -> Corpus:
    """Return `n` pairs of "alpaca", of "organism" (held-out questions and right answers), or the first of a file.

    Alpaca is shuffled with seed 42, and rows with an input are left out (paper section G.3); these may be among the
    prompts that the direction was found on, as in the official code. A file is JSON or JSON lines with `instruction`
    and `output`, or `prompt` and `response`. Raises as `load_texts`.
    """
    if name == "alpaca":
        rows = (row for row in _from_hub(ALPACA, streaming=False).shuffle(seed=42) if not row["input"].strip())
        pairs = tuple((row["instruction"].strip(), row["output"]) for row in islice(rows, n))
        return Corpus(name, pairs, f"huggingface.co/datasets/{ALPACA}", "CC-BY-NC-4.0")
    if name == BUNDLED:
        from refusal.organism.grammar import answer, parse
        from refusal.organism.language import prompt_table

        requests = ((text, parse(text)) for text, _ in prompt_table("harmless")["test"][:n])
        pairs = tuple((text, answer(request)) for text, request in requests if request)
        return Corpus(name, pairs, "the bundled language's test questions with their right answers", "Apache-2.0")
    return Corpus(Path(name).name, tuple(islice(_read_pairs(Path(name).expanduser()), n)), name)


def read_texts(path: Path, *, column: str | None = None, n: int = DOCUMENTS) -> list[str]:
    """Read the first `n` plain texts of a file, as `load_texts` does. Raises BadInput for one that cannot be used."""
    if path.suffix.lower() != ".txt":
        return [prompt.instruction for prompt in read_prompt_file(path, column=column).prompts[:n]]
    texts = [text.strip() for text in re.split(r"\n\s*\n", _decoded(path)) if text.strip()]
    if not texts:
        raise BadInput(f"{path}: holds no text. Give a file with at least one.")
    return texts[:n]


def _read_pairs(path: Path) -> Iterator[Pair]:
    text = _decoded(path)
    try:
        lines = (line for line in text.split("\n") if line.strip())
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
    except ValueError as error:
        raise BadInput(
            f"{path}: not JSON or JSON lines ({error}). Write a pair of question and answer a row."
        ) from error
    if not rows:
        raise BadInput(f"{path}: holds no pair. Give a file with at least one.")
    return (_pair(row, path, number) for number, row in enumerate(rows, start=1))


def _pair(row: Any, path: Path, number: int) -> Pair:
    for asked, said in COLUMNS if isinstance(row, Mapping) else ():
        if isinstance(row.get(asked), str) and isinstance(row.get(said), str):
            return row[asked], row[said]
    names = " or ".join(f"{asked} and {said}" for asked, said in COLUMNS)
    raise BadInput(f"{path}: row {number} has no text under {names}. Name its columns so.")


def _path_and_column(name: str) -> tuple[Path, str | None]:
    path = Path(name).expanduser()
    head, _, column = name.rpartition(":")
    return (Path(head).expanduser(), column) if head and not path.exists() else (path, None)


def _decoded(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as text ({error}). Give a file in UTF-8.") from error


def _from_hub(name: str, *, streaming: bool) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise Unavailable(f'{name} needs the package datasets: pip install "refusal[capabilities]"') from error
    try:
        return load_dataset(name, split="train", streaming=streaming)
    except (OSError, ValueError) as error:  # missing, no network, no such data set
        raise Unavailable(
            f"{name} cannot be read from the Hub ({error}). Try again with a network, or give a file of your own."
        ) from error
