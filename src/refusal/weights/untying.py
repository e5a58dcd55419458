"""The small files of a checkpoint whose unembedding gets a tensor of its own."""

import json
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from refusal.errors import UnsupportedModel
from refusal.weights.names import IN_MEMORY, Tie, skeleton
from refusal.weights.safetensors_files import INDEX, Files


def untied_config(text: str) -> str:
    """Return a config.json that says that embeddings are not tied; every other byte stays as it was."""
    edited = re.sub(r'("tie_word_embeddings"\s*:\s*)true', r"\1false", text)
    line = '\n{}"tie_word_embeddings": false,'
    inner = json.loads(edited).get("text_config")
    if isinstance(inner, dict) and "tie_word_embeddings" not in inner:
        edited = re.sub(r'"text_config"\s*:\s*\{', lambda found: found[0] + line.format("    "), edited, count=1)
    if "tie_word_embeddings" not in json.loads(edited):
        edited = edited.replace("{", "{" + line.format("  "), 1)
    return edited


def check_untied(files: Files, config: str, tie: Tie) -> None:
    """Raise UnsupportedModel where transformers ties the embeddings whatever the config says."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(config, encoding="utf-8")
        network: Any = skeleton(replace(files, folder=Path(folder)))
    if network.get_input_embeddings().weight is network.get_output_embeddings().weight:
        raise UnsupportedModel(
            f"'{tie.unembedding}' of {files.folder} is tied to the embedding whatever its config says, so a checkpoint "
            f"cannot hold the edit. {IN_MEMORY}"
        )


def untied_index(files: Files, tie: Tie) -> bytes:
    """Return the index of the shards with the unembedding in the shard that holds the embedding."""
    index = json.loads((files.folder / INDEX).read_text(encoding="utf-8"))
    index["weight_map"][tie.unembedding] = tie.embedding.file
    if "total_size" in index.get("metadata", {}):
        index["metadata"]["total_size"] += tie.embedding.end - tie.embedding.start
    return (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
