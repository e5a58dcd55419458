"""How often the model refused under every intervention: bars with their intervals, and the table behind them."""

from collections.abc import Mapping
from typing import Any

from refusal import figures
from refusal.conditions import MAIN
from refusal.findings import Findings, Row
from refusal.formats import brief, coefficient_text, ends, extent, percent
from refusal.labels import in_order, is_control, label_of, name_of
from refusal.report.judges import agreement, further_judges
from refusal.report.picture import Picture, picture
from refusal.report.words import rate_cell
from refusal.results import rate_in, result_sets

GARBAGE = "incoherent"


def tables(findings: Findings) -> list[dict[str, Any]]:
    """Return what the page says of every set of prompts."""
    return [
        _table(name, rows, findings.completions.get(name, {})) for name, rows in result_sets(findings.results).items()
    ]


def systems(results: Row) -> list[dict[str, str]]:
    """Return a line a set and intervention: how far refusals lie apart over the system prompts it was asked under."""
    return [
        {
            "set": name,
            "intervention": name_of(condition),
            "n": str(spread["n"]),
            "mean": percent(spread["mean"]),
            "reach": extent(spread, percent),
        }
        for name, rows in (results.get("systems") or {}).items()
        for condition, rates in in_order(rows)
        if (spread := rates.get("refused"))
    ]


def _table(name: str, rows: Mapping[str, Row], answers: Mapping[str, Any]) -> dict[str, Any]:
    listed = in_order(rows)
    lines = [
        {
            "intervention": key,
            "label": name_of(key, row.get("coefficient")),
            "note": label_of(key).note,
            "control": is_control(key, row),
            "refused": rate_cell(row, "refused"),
            "exact": rate_cell(rate, "exact") if (rate := rate_in(row, "exact")) else None,
        }
        for key, row in listed
    ]
    figure = [_bars(listed, f"{name.capitalize()} prompts: refused", "refused")]
    if any("exact" in row for _, row in listed):
        figure.append(_bars(listed, f"{name.capitalize()} prompts: exact answers", "exact"))
    return {
        "set": name,
        "said": [sentence for sentence in (_overdone(rows, answers),) if sentence],
        "lines": lines,
        "exact": any(line["exact"] for line in lines),
        "figures": figure,
        "further": further_judges(rows),
        "agreement": agreement(answers),
        "main": MAIN.get(name, ""),
    }


def _bars(listed: list[tuple[str, Row]], title: str, measure: str) -> Picture:
    data = [
        (name_of(key), row.get("coefficient"), *(rate[key] for key in (measure, "n", "rate", "low", "high")))
        for key, row in listed
        if (rate := rate_in(row, measure))
    ]
    head = ("intervention", "coefficient", measure, "n", "rate", "95 % low", "95 % high")
    return picture(figures.rates(listed, title, measure=measure), head, data)


def _overdone(rows: Mapping[str, Row], answers: Mapping[str, Any]) -> str:
    """Say why more of the direction may bring fewer refusals, where it does."""
    usual, double = rows.get("addition"), rows.get("double_addition")
    if usual is None or double is None or double["high"] >= usual["low"]:
        return ""
    said = (
        f"Twice as much is not twice the effect: at {_c(double)} the model refuses "
        f"{brief(double['rate'])} {ends(double)}, less than at {_c(usual)} "
        f"({brief(usual['rate'])})."
    )
    rest = [row["verdicts"] for row in answers.get("double_addition", ()) if "grammar" in row["verdicts"]]
    broken = sum(one["grammar"] == GARBAGE and one.get("substring") != "refused" for one in rest)
    if rest:
        said += (
            f" Of its {len(rest)} answers, {broken} are neither a refusal nor an answer in the language's grammar: so "
            "long a vector breaks the answers down, and what is garbled does not count as refused."
        )
    else:
        said += " What is not counted as refused need not be an answer: look at those answers below."
    return said


def _c(row: Row) -> str:
    return coefficient_text(row["coefficient"]).replace(" ", "\N{NO-BREAK SPACE}")
