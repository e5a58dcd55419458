"""The model card of an export: what was done, with which direction, how far it reaches, and what it did."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import metadata_load

from refusal.direction import Direction
from refusal.weights.covering import Coverage
from refusal.weights.papers import CARD, RECORD, SOURCE_CARD, SUMS, direction_hash

PAPER = "[Refusal in Language Models Is Mediated by a Single Direction](https://arxiv.org/abs/2406.11717)"

UNTIED = (
    "Embedding and unembedding were one matrix. Editing it would have changed the unembedding too, so the unembedding "
    "now has a tensor of its own, the original one, and `tie_word_embeddings` is false."
)


def ablation_card(
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
    """Write the card of a checkpoint with a direction removed. The source's own card is kept beside it."""
    what = (
        f"The weights of `{name}`, edited by weight orthogonalization after {PAPER} (section E, eq. 5): every matrix "
        "and bias that writes to the residual stream no longer writes along one direction. Only these tensors differ "
        "from the source; they were computed in float32 and rounded once to the dtype they had."
    )
    differs = [*notes, *([UNTIED] if untied else [])]
    if left_out:
        differs.append(f"Left out, because they are the unedited weights in other files: {', '.join(left_out)}.")
    if (source / CARD).is_file():
        differs.append(f"The source's model card is `{SOURCE_CARD}`.")
    parts = [what, _said_of_direction(direction), _said_of_coverage(coverage)]
    named = f"`{RECORD}` names every edited tensor."
    return _card(name, source, "one direction removed", parts, differs, named, effect=effect, checksums=checksums)


def addition_card(source: Path | None, direction: Direction, record: Mapping[str, Any], *, checksums: bool) -> str:
    """Write the card of a checkpoint with an addition baked in. `source` is the model's folder, where it is here."""
    name, dtype, new = record["source"], record["dtype"], record["new_biases"]
    what = (
        f"The weights of `{name}`, with the activation addition of {PAPER} (section 2.4, eq. 3) built in: "
        f"{record['coefficient']:g} times one direction is added to the residual stream at the input of layer "
        f"{record['layer']}, at every position. It stands {record['where']}. No other weight differs from the source, "
        f"but for rounding to {dtype}, in which the model was loaded."
    )
    differs = [*record["notes"], "The files are cut and named as transformers does it."]
    if record["untied"]:
        differs.append(UNTIED)
    if new:
        differs.append(f"New biases: {new}, zero but for the one named above; `config.json` says that they are there.")
    parts = [what, _said_of_direction(direction)]
    named = f"`{RECORD}` holds the same for programs."
    return _card(
        name, source, "one direction added", parts, differs, named, effect=record["effect"], checksums=checksums
    )


def measured_section(proof: Mapping[str, Any], what: str) -> str:
    """Say what an export was measured to do beside hooks; `proof` is a record of `verify_export`, `what` the hooks."""
    holds = "it holds" if proof["holds"] else "**it does not hold**"
    exact = "" if proof["exact"] else f" What the family's weight edit reaches: {proof['reach']}."
    lines = [
        f"Held against {what} on {proof['prompts']} prompts of `{proof['set']}`, with {proof['tokens']} tokens of "
        f"greedy answers: {holds}.{exact}",
        f"- largest difference of a logit: {proof['difference']:.3g}, which is {proof['share']:.2g} of the largest "
        f"change that the hooks make ({proof['effect']:.3g}); the limit is {proof['limit']:.2g}",
        f"- greedy tokens that agree: {proof['agreement']:.1%}; of the unedited model's {proof['plain_agreement']:.1%}",
    ]
    return "## Measured\n\n" + lines[0] + "\n\n" + "\n".join(lines[1:])


def _card(
    name: str,
    source: Path | None,
    title: str,
    parts: Sequence[str],
    differs: Sequence[str],
    named: str,
    *,
    effect: Mapping[str, Any] | None,
    checksums: bool,
) -> str:
    own = _source_metadata(source)
    licence = f"licence: {own['license']}" if own.get("license") else "its licence stands with it"
    whole = [
        _front_matter(name, own),
        f"# {Path(name).name}, {title}",
        *parts,
        _said_of_effect(effect),
        "## What else differs",
        "\n".join(f"- {line}" for line in differs) or "- Nothing.",
        "## Licence",
        f"This is a derivative of `{name}` ({licence}); the source's terms of use apply to it unchanged.",
        named + f" `{SUMS}` holds the hash of every file." * checksums,
    ]
    return "\n\n".join(whole) + "\n"


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


def _source_metadata(source: Path | None) -> Mapping[str, Any]:
    try:
        return (metadata_load(source / CARD) if source else None) or {}
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
        hint = "`refusal verify-export` with `--card` holds it against hooks and adds the result."
        return f"## Measured effect\n\nNot measured when this was exported. {hint}"
    lines = (f"- {key}: {json.dumps(value, ensure_ascii=False, default=str)}" for key, value in effect.items())
    return "## Measured effect\n\n" + "\n".join(lines)
