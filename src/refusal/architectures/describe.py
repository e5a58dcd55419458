"""The table of families in words: what is covered, what a weight edit reaches there, and how that was checked."""

from collections.abc import Sequence

from refusal.architectures.families import ROWS
from refusal.architectures.row import COMPONENT_FREE, EXACT, MEASURED, Architecture

# tests/test_zoo.py, for every model_type of every row.
CHECKED = "tiny random model: hooks leave nothing along r̂, addition adds c·r, a direction is found, {edit}"
EDIT = {
    EXACT: "edited weights = hooks",
    COMPONENT_FREE: "edited weights write nothing along r̂",
    MEASURED: "what edited weights leave is measured",
}
REACH = {
    EXACT: "edited weights are the ablated model",
    COMPONENT_FREE: "nothing is written along r̂; a norm behind the writer keeps a length that ablation changes",
}


def describe(rows: Sequence[Architecture] = ROWS) -> list[dict[str, str]]:
    """Return one entry a `model_type`, and one more where a setting changes the layout, in alphabetical order."""
    entries = [_entry(row, model_type) for row in rows for model_type in row.model_types]
    return sorted(entries, key=lambda entry: (entry["model_type"], entry["only with"]))


def _entry(row: Architecture, model_type: str) -> dict[str, str]:
    return {
        "model_type": model_type,
        "only with": ", ".join(f"{name}={value}" for name, value in row.requires.items()),
        "blocks": row.blocks,
        "writers": ", ".join(writer.name for writer in row.writers),
        "weight edit": row.edit,
        "why": row.leaks or REACH[row.edit],
        "tied embeddings": "untied by the edit, where they are tied",
        "padding": "masked" if row.padding else "not masked: prompts of one length share a batch",
        "checked": CHECKED.format(edit=EDIT[row.edit]),
        "note": row.note,
    }
