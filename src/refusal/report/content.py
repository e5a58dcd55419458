"""Findings → what the page says: plain values, sentences built from the numbers, and figures."""

from typing import Any

from refusal.findings import Findings
from refusal.report.answers import samples
from refusal.report.beside import paper
from refusal.report.cautions import cautions
from refusal.report.choice import candidates, coefficients, projections
from refusal.report.costs import carried
from refusal.report.done import chosen, steps
from refusal.report.evidence import evidence
from refusal.report.headline import headline
from refusal.report.mechanism import suffixes
from refusal.report.picture import placed
from refusal.report.provenance import asked
from refusal.report.rates import systems, tables
from refusal.report.sections import sections


def page_values(findings: Findings) -> dict[str, Any]:
    """Return every value that the page's template names."""
    record, results = findings.record, findings.results
    made = tables(findings)
    return placed(
        {
            "model": record["model"],
            "headline": headline(results),
            "cautions": cautions(findings),
            "steps": steps(findings),
            "chosen": chosen(findings),
            "tables": made,
            "systems": systems(results),
            "controls": any(line["control"] for table in made for line in table["lines"]),
            "grammar": bool(record.get("grammar")),
            "candidates": candidates(findings),
            "projections": projections(findings),
            "coefficients": coefficients(findings),
            "suffixes": suffixes(findings.folder),
            "sections": sections(findings.folder, record.get("not_explained") or {}),
            "evidence": evidence(results, record.get("choices")) | {"carried": carried(findings)},
            "samples": samples(findings),
            "identical": results.get("weights_equal_ablation") or {},
            "paper": paper(findings),
            "asked": asked(findings),
            "random_count": max((row["n"] for row in (results.get("randoms") or {}).values() if row), default=1),
        }
    )
