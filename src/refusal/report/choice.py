"""How the direction was chosen: scores and verdict of every candidate, the projections, the curve of coefficients."""

from collections.abc import Mapping, Sequence
from typing import Any

from refusal import figures, rule
from refusal.conditions import read_condition
from refusal.findings import Findings, Row
from refusal.formats import number, spread_text, tidy
from refusal.report.picture import picture
from refusal.results import rate_in

VERDICTS = {
    rule.SURVIVOR: "passes every limit, but another candidate has a lower bypass score",
    rule.NO_DIFFERENCE: "both sets have the same mean there (the template's tokens, before any layer has mixed them)",
    rule.NOT_A_NUMBER: "a score is not a number",
    rule.LATE_LAYER: "among the last layers, which are never chosen",
    rule.HIGH_KL: "removing it changes the answers to harmless prompts too much",
    rule.LOW_INDUCE: "adding it does not bring refusal about",
    rule.NOT_SCORED: "a fast sweep left it before all of its scores were measured, because it could not win",
}


def setting(record: Row, name: str) -> Any:
    """Return the value of a setting of the run, or None when the run does not record it."""
    return record.get("config", {}).get(name, {}).get("value")


def candidates(findings: Findings) -> dict[str, Any]:
    """Return the maps of all candidates: the rule's verdicts with what they mean, and the three scores."""
    record, rows = findings.record, findings.selection
    tokens = findings.tokens
    names = ("position", "layer", *figures.SCORES, "verdict")
    data = [tuple(row[name] for name in names) for row in rows]
    notes = _notes(record)
    drawn = [
        picture(
            figures.scores(rows, score, tokens=tokens, note=notes[score]),
            ("position", "layer", score, "verdict"),
            [(row["position"], row["layer"], row[score], row["verdict"]) for row in rows],
        )
        for score in figures.SCORES
    ]
    whole = picture(figures.verdicts(rows, tokens=tokens), names, data)
    return {
        "verdicts": {"figures": [whole], "key": figures.verdicts_key(rows)},
        "losers": _losers(rows),
        "scores": {"figures": drawn},
        "said": f"{_baseline(record)} {_why_small(findings)}".strip(),
    }


def _notes(record: Row) -> dict[str, str]:
    """Return each score's limit, to stand behind what the score is."""
    limits = {"bypass": None, "induce": setting(record, "min_induce"), "kl": setting(record, "max_kl")}
    word = {"induce": "at least", "kl": "at most"}
    return {name: "" if limit is None else f"; {word[name]} {number(limit)}" for name, limit in limits.items()}


def _baseline(record: Row) -> str:
    """Say what the refusal metric is without intervention, which bypass and induce scores are read against."""
    found = record.get("baseline") or {}
    if None in (found.get("harmful"), found.get("harmless")):  # a mean that is no number is null
        return ""
    return (
        "Bypass and induce scores are log-odds of a refusal as the first token; with nothing done they are "
        f"{number(found['harmful'])} on harmful and {number(found['harmless'])} on harmless validation prompts."
    )


def _losers(selection: Sequence[Row]) -> list[tuple[str, int, str]]:
    """Return every verdict but the winner's, how many candidates have it, and what it means."""
    verdicts = [row["verdict"] for row in selection if row["verdict"] != rule.SELECTED]
    named = [verdict for verdict in VERDICTS if verdict in verdicts]
    others = sorted(set(verdicts) - set(named))
    return [(verdict, verdicts.count(verdict), VERDICTS.get(verdict, "")) for verdict in (*named, *others)]


def projections(findings: Findings) -> dict[str, Any] | None:
    """Return the component of both sets on the direction by layer, and what it is where the direction was read."""
    record = findings.projections
    if record is None:
        return None
    layer, layers = findings.results["layer"], record["layers"]
    at = layers.index(layer) if layer in layers else len(layers) - 1
    means, sds = ({name: record[name][key][at] for name in ("harmful", "harmless")} for key in ("mean", "sd"))
    apart, spread = means["harmful"] - means["harmless"], ((sds["harmful"] ** 2 + sds["harmless"] ** 2) / 2) ** 0.5
    said = (
        f"How much of the direction is in the residual stream, at position {number(findings.results['position'])} and "
        f"the input of each block, on {record['harmful']['n']} harmful and {record['harmless']['n']} harmless test "
        f"prompts. At layer {layers[at]} it is {spread_text(means['harmful'], sds['harmful'])} on harmful and "
        f"{spread_text(means['harmless'], sds['harmless'])} on harmless ones"
    )
    if spread:
        said += f": the means lie {abs(apart) / spread:.1f} standard deviations apart"
    rows = [
        (name, x, mean, sd, record[name]["n"])
        for name in ("harmful", "harmless")
        for x, mean, sd in zip(layers, record[name]["mean"], record[name]["sd"], strict=True)
    ]
    drawn = picture(figures.projections(record, layer=layer), ("prompts", "layer", "mean", "sd", "n"), rows)
    return {"said": f"{said}.", "figures": [drawn], "key": figures.projections_key()}


def coefficients(findings: Findings) -> dict[str, Any] | None:
    """Return refusals over the coefficient of an addition, with the further strengths that the run measured."""
    record = findings.coefficients
    if record is None:
        return None
    strengths = _strengths(findings.results.get("harmless") or {})
    measures = ("refused", *(["exact"] if any("exact" in row for row in record["direction"]) else []))
    drawn = []
    for measure in measures:
        curve = figures.coefficients(record, measure=measure, further=strengths)
        head = ("vector", "coefficient", measure, "n", "rate", "95 % low", "95 % high")
        drawn.append(picture(curve, head, _curve(record, strengths, measure)))
    return {"figures": drawn, "key": figures.coefficients_key(further=bool(strengths)), "n": record["n"]}


def _curve(record: Row, further: Sequence[Row], measure: str) -> list[tuple[Any, ...]]:
    found = [
        (name, row["coefficient"], row[measure])
        for name in ("direction", "random")
        for row in record[name]
        if measure in row
    ]
    found += [("direction", row["coefficient"], cell) for row in further if (cell := rate_in(row, measure))]
    return [(name, c, *(cell[key] for key in (measure, "n", "rate", "low", "high"))) for name, c, cell in found]


def _strengths(rows: Mapping[str, Row]) -> list[Row]:
    """Return the results with the direction itself added at any strength, from the least to the greatest."""
    own = [
        row
        for name, row in rows.items()
        if (found := read_condition(name)) and found.kind == "addition" and not found.is_control
    ]
    return sorted((row for row in own if "coefficient" in row), key=lambda row: row["coefficient"])


def _why_small(findings: Findings) -> str:
    """Say that the KL of the choice is of prompts which the model answers, where the page shows another one as well."""
    kl = findings.results.get("kl")
    first = ((findings.results.get("kl_on_answers") or {}).get("ablation") or {}).get("first")
    if kl is None or first is None:
        return ""
    return (
        f"The chosen candidate's KL is {tidy(kl)} here, on validation prompts that the model answers; on the test "
        f"prompts, those that it refuses included, it is {tidy(first['kl'])}."
    )
