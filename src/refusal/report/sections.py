"""The analyses of mechanism/ as the page shows them: one section each, in this order."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from refusal.errors import BadRunFolder
from refusal.labels import Row
from refusal.records import read_json
from refusal.report import (
    agreement,
    base_and_chat,
    behaviours,
    components,
    geometry,
    minimal,
    outputs,
    separability,
    stream,
    trace,
    transfer,
)
from refusal.report.inside import FOUND
from refusal.report.measured import Measured
from refusal.report.section import Missing, Section

# The name of the measurement, which is that of its file, → what makes its section.
SECTIONS: dict[str, Callable[[Measured], Section]] = {
    "first-tokens": outputs.first_tokens,
    "metrics": outputs.metrics,
    "stream": stream.section,
    "behaviours": behaviours.section,
    "base-and-chat": base_and_chat.section,
    "transfer": transfer.section,
    "projections": geometry.projections,
    "separability": separability.section,
    "pca": geometry.pca,
    "candidate-cosines": agreement.candidate_cosines,
    "agreement": agreement.agreement,
    "components": components.section,
    "trace": trace.section,
    "layers": minimal.layers,
    "minimal": minimal.minimal,
}


def section_of(name: str, record: Row, where: object) -> Section:
    """Make the section of one measurement's record, what it found in one sentence before all else that it says.

    Raises BadRunFolder for a record of something else.
    """
    try:
        measured = Measured.read(record)
        section = SECTIONS[name](measured)
        return replace(section, said=[FOUND[name](measured), *section.said])
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise BadRunFolder(
            f"{where} is not what '{name}' measures ({type(error).__name__}: {error}). Remove it and measure again."
        ) from error


def sections(folder: Path, reasons: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the sections of a run folder; an analysis that is not there has the `reason` why, if one is known."""
    found = []
    for name in SECTIONS:
        path = folder / "mechanism" / f"{name}.json"
        if path.exists():
            found.append({"name": name, **vars(section_of(name, read_json(path), path))})
        elif name in reasons:
            found.append({"name": name, **vars(Missing(name.capitalize(), reasons[name]))})
    return found
