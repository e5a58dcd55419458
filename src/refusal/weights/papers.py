"""What lies beside the weights of an export: the model card, the record for programs, the hash of every file."""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from refusal.direction import Direction
from refusal.errors import BadInput
from refusal.records import disk_error, file_hash, write_json, write_text

FORMAT = 1
CARD, SOURCE_CARD, RECORD, SUMS = "README.md", "SOURCE_README.md", "refusal.json", "SHA256SUMS"
MEASURED = re.compile(r"^## Measured\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
NEXT = "## Licence"  # what the section stands before, where the card has it


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
        _write_sums(folder, hashes)


def read_record(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of an export of this package, once it says what is `asked` of it: intervention, direction, ….

    Raises BadInput for a folder without one, or with another.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        there = {**record, "direction": record["direction"]["sha256"]}
        (folder / CARD).stat()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"{folder} is no whole export of this package: it lacks {CARD} and {RECORD} as such exports have them "
            f"({error}). Leave --card out."
        ) from error
    other = [f"{name} is {there.get(name)}, not {value}" for name, value in asked.items() if there.get(name) != value]
    if other:
        raise BadInput(
            f"{folder} holds another intervention than the one it is held against: {'; '.join(other)}. Give its own, "
            "or leave --card out."
        )
    return record


def add_measured(folder: Path, section: str, measured: Mapping[str, Any]) -> None:
    """Put a result into card, record and sums of an export, in the place of an earlier one.

    Raises BadInput for a folder that may not be written to, Unavailable for a full disk.
    """
    try:
        card = MEASURED.sub("", (folder / CARD).read_text(encoding="utf-8"))
        before, licence, after = card.partition(NEXT)
        write_text(folder / CARD, f"{before.rstrip()}\n\n{section}\n" + (f"\n{licence}{after}" if licence else ""))
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        write_json(folder / RECORD, {**record, "measured": dict(measured)})
        if (folder / SUMS).exists():
            lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
            hashes = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
            _write_sums(folder, hashes)
    except OSError as error:
        raise disk_error(folder, error) from error


def _write_sums(folder: Path, others: Mapping[str, str]) -> None:
    hashes = {**others, **{name: file_hash(folder / name) for name in (CARD, RECORD)}}
    write_text(folder / SUMS, "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)))
