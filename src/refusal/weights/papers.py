"""What lies beside the weights of an export: the model card, the record for programs, the hash of every file."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from refusal.direction import Direction
from refusal.records import file_hash, write_json, write_text

FORMAT = 1
CARD, SOURCE_CARD, RECORD, SUMS = "README.md", "SOURCE_README.md", "refusal.json", "SHA256SUMS"


def direction_hash(direction: Direction) -> str:
    """Return the SHA-256 of a direction's values as float64, so that the same vector in any dtype file is the same."""
    return sha256(direction.vector.double().cpu().numpy().tobytes()).hexdigest()


def describe_direction(direction: Direction) -> dict[str, Any]:
    """Return what identifies a direction, for a record."""
    return {
        "sha256": direction_hash(direction),
        "layer": direction.layer,
        "position": direction.position,
        "norm": direction.norm,
        "components": len(direction.vector),
        "origin": dict(direction.origin),
    }


def write_papers(folder: Path, card: str, record: Mapping[str, Any], hashes: Mapping[str, str] | None) -> None:
    """Write card and record, and the sums of the folder's files, of which `hashes` holds the others; None: no sums."""
    write_text(folder / CARD, card)
    write_json(folder / RECORD, {"format": FORMAT, **record})
    if hashes is not None:
        own = {name: file_hash(folder / name) for name in (CARD, RECORD)}
        _write_sums(folder, {**hashes, **own})


def _write_sums(folder: Path, hashes: Mapping[str, str]) -> None:
    write_text(folder / SUMS, "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)))
