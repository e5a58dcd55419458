"""Findings → what the page says: plain values, sentences built from the numbers, and figures."""

from collections.abc import Mapping
from typing import Any

from refusal.comparisons import LEVEL
from refusal.findings import Findings
from refusal.report.answers import example, samples
from refusal.report.beside import paper
from refusal.report.cautions import cautions
from refusal.report.choice import candidates, coefficients, projections
from refusal.report.costs import costs
from refusal.report.coverage import coverage
from refusal.report.done import chosen, steps
from refusal.report.evidence import draws, tests
from refusal.report.headline import headline
from refusal.report.lead import meaning, subtitle, toy
from refusal.report.mechanism import suffixes
from refusal.report.picture import placed
from refusal.report.provenance import asked
from refusal.report.rates import systems, tables
from refusal.report.sections import sections

# The page's sections in their order: the name of each, to which links lead, and its title.
TITLES: Mapping[str, str] = {
    "example": "An example",
    "result": "Result",
    "done": "What was done",
    "tests": "Against its controls",
    "costs": "What it costs",
    "candidates": "How the direction was chosen",
    "projections": "Where the two sets part",
    "coefficients": "How much has to be added",
    "mechanism": "Inside the model",
    "judges": "Do the judges agree?",
    "completions": "Answers side by side",
    "exports": "Edited weights and exports",
    "asked": "Where these numbers come from",
    "limits": "What this does not show",
    "words": "Words",
    "paper": "Beside the paper",
}
PLACES = {"tables": "result", "further": "judges", "suffixes": "inside", "sections": "inside"}  # whose figures they are


def page_values(findings: Findings) -> dict[str, Any]:
    """Return every value that the page's template names."""
    record, results = findings.record, findings.results
    made = tables(findings)
    return placed(
        {
            "titles": TITLES,
            "model": record["model"],
            "subtitle": subtitle(record),
            "headline": headline(results),
            "meaning": meaning(results),
            "example": example(findings),
            "cautions": [*toy(record), *cautions(findings)],
            "steps": steps(findings),
            "chosen": chosen(findings),
            "tables": made,
            "systems": systems(results),
            "controls": any(line["control"] for table in made for line in table["lines"]),
            "grammar": bool(record.get("grammar")),
            "candidates": candidates(findings),
            "projections": projections(findings),
            "coefficients": coefficients(findings),
            "suffixes": [
                {**study, "name": f"suffix-{i}" if i > 1 else "suffix"}
                for i, study in enumerate(suffixes(findings.folder), 1)
            ],
            "sections": sections(findings.folder, record.get("not_explained") or {}),
            "tests": tests(results),
            "draws": draws(results),
            "costs": costs(findings),
            "level": LEVEL,
            "samples": samples(findings),
            "identical": results.get("weights_equal_ablation") or {},
            "coverage": coverage(findings.coverage),
            "paper": paper(findings),
            "asked": asked(findings),
            "random_count": max((row["n"] for row in (results.get("randoms") or {}).values() if row), default=1),
        },
        PLACES,
    )
