"""The model card of an export: what was done, with which direction, how far it reaches, and what it did."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import metadata_load

from refusal.direction import Direction
from refusal.weights.covering import Coverage

CARD, SOURCE_CARD, RECORD, SUMS = "README.md", "SOURCE_README.md", "refusal.json", "SHA256SUMS"
PAPER = "[Refusal in Language Models Is Mediated by a Single Direction](https://arxiv.org/abs/2406.11717)"


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


def model_card(
    name: str,
    source: Path,
    direction: Direction,
    coverage: Coverage,
    *,
    untied: bool,
    left_out: Sequence[str],
    notes: Sequence[str],
    effect: Mapping[str, Any] | None,
    checksums: bool,
) -> str:
    """Write the card. The source's own card is kept beside it, and its licence is carried over."""
    own = _source_metadata(source)
    what = (
        f"The weights of `{name}`, edited by weight orthogonalization after {PAPER} (section E, eq. 5): every matrix "
        "and bias that writes to the residual stream no longer writes along one direction. Only these tensors differ "
        "from the source; they were computed in float32 and rounded once to the dtype they had."
    )
    parts = [
        _front_matter(name, own),
        f"# {Path(name).name}, one direction removed",
        what,
        _said_of_direction(direction),
        _said_of_coverage(coverage),
        _said_of_effect(effect),
        "## What else differs",
        "\n".join(f"- {line}" for line in _differences(source, untied, left_out, notes)),
        "## Licence",
        f"This is a derivative of `{name}`"
        + (f" (licence: {own['license']})" if own.get("license") else ", whose files name no licence")
        + "; the source's terms of use apply to it unchanged.",
        f"`{RECORD}` names every edited tensor." + f" `{SUMS}` holds the hash of every file." * checksums,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(name: str, own: Mapping[str, Any]) -> str:
    kept = {key: own[key] for key in ("license", "license_name", "license_link", "language") if key in own}
    fields = {
        **kept,
        "base_model": name,
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "tags": ["refusal-direction", "weight-orthogonalization"],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _source_metadata(source: Path) -> Mapping[str, Any]:
    try:
        return metadata_load(source / CARD) or {}
    except (OSError, ValueError, yaml.YAMLError):  # no card, or one without readable metadata
        return {}


def _said_of_direction(direction: Direction) -> str:
    lines = [
        f"- read at layer {direction.layer}, position {direction.position}; length {direction.norm:.6g}, "
        f"{len(direction.vector)} components",
        f"- SHA-256 of its values as float64: `{direction_hash(direction)}`",
        *(f"- {key}: {json.dumps(value, ensure_ascii=False, default=str)}" for key, value in direction.origin.items()),
    ]
    return "## The direction\n\n" + "\n".join(lines)


def _said_of_coverage(coverage: Coverage) -> str:
    head = "## Coverage\n\n"
    if not coverage.complete:
        gaps = "\n".join(f"- {gap}" for gap in coverage.gaps)
        head += f"**Incomplete: the model can still write along the direction.**\n\n{gaps}\n\n"
    elif coverage.exact:
        head += "Complete: the edited weights do what directional ablation does, up to rounding.\n\n"
    else:
        head += (
            "Complete, but not equal to directional ablation: nothing is written along the direction, and a norm "
            "behind some writers keeps a length that ablation changes.\n\n"
        )
    head += (
        "Shares are of the tensor's norm, the largest of each group; behind a norm, of what the norm lets through.\n\n"
    )
    table = ["| tensor | how many | edited | along the direction before | after | how |", "|---|---|---|---|---|---|"]
    for row in coverage.groups():
        shares = (f"{row[key]:.3g}" if row[key] is not None else "–" for key in ("before", "after"))
        edited = "yes" if row["edited"] else "**no**"
        table.append(f"| `{row['name']}` | {row['tensors']} | {edited} | {' | '.join(shares)} | {row['why']} |")
    return head + "\n".join(table)


def _said_of_effect(effect: Mapping[str, Any] | None) -> str:
    if not effect:
        return "## Measured effect\n\nNot measured when this was exported."
    lines = (f"- {key}: {json.dumps(value, ensure_ascii=False, default=str)}" for key, value in effect.items())
    return "## Measured effect\n\n" + "\n".join(lines)


def _differences(source: Path, untied: bool, left_out: Sequence[str], notes: Sequence[str]) -> list[str]:
    lines = list(notes)
    if untied:
        lines.append(
            "Embedding and unembedding were one matrix. Editing it would have changed the unembedding too, so the "
            "unembedding now has a tensor of its own, the original one, and `tie_word_embeddings` is false."
        )
    if left_out:
        lines.append(f"Left out, because they are the unedited weights in other files: {', '.join(left_out)}.")
    if (source / CARD).is_file():
        lines.append(f"The source's model card is `{SOURCE_CARD}`.")
    return lines or ["Nothing."]
