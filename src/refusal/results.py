"""Records → headline numbers: what `results.json` holds, and what `refusal verify` computes again. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refusal.comparisons import compare
from refusal.conditions import CONTROLS, MAIN, Condition, Kind, conditions, cost_conditions, read_condition
from refusal.errors import BadRunFolder
from refusal.read_costs import against_controls, capabilities, divergences, losses
from refusal.records import read_json, read_rows
from refusal.rule import SELECTED, SURVIVOR
from refusal.statistics import Rate, spread
from refusal.verdicts import COUNTED, Word, rate_of, read_verdicts

SETS = tuple(MAIN)
JUDGED = {"substring": "refused", "grammar": "exact"}  # what their rates are called in the results


def summarize(folder: Path) -> dict[str, Any]:
    """Compute every headline number of a run from its records. Raises BadRunFolder for a missing one."""
    rows, record = read_rows(folder / "selection.jsonl"), read_json(folder / "run.json")
    chosen = next((row for row in rows if row["verdict"] == SELECTED), None)
    if chosen is None:
        raise BadRunFolder(f"{folder / 'selection.jsonl'} holds no selected candidate. Remove it and run again.")
    further = {name: about["measure"] for name, about in record.get("judges", {}).items() if name not in JUDGED}
    measures = {**{judge: COUNTED[judge] for judge in JUDGED}, **further}
    about: list[dict[str, Any]] = record.get("evaluations") or [{"name": name, "headline": MAIN[name]} for name in SETS]
    randoms = _setting(record, "randoms")
    listed = {one["name"]: conditions(one["headline"], randoms=randoms) for one in about}
    rates = {name: _rows(folder, name, found, record, measures) for name, found in listed.items()}
    return {
        "model": record["model"],
        **{key: chosen[key] for key in ("position", "layer", "bypass", "induce", "kl")},
        "survivors": sum(row["verdict"] in (SELECTED, SURVIVOR) for row in rows),
        "total": len(rows),
        **_norms(folder),
        **{name: rates[name] for name in SETS},
        "further": {name: found for name, found in rates.items() if name not in SETS},
        "systems": _systems(rates),
        "randoms": {name: _randoms(rates[name], MAIN[name]) for name in SETS},
        "weights_equal_ablation": {name: _identical(folder, name) for name in rates if "weights" in rates[name]},
        "comparisons": [row for name, found in listed.items() for row in compare(folder, name, found, measures)],
        "costs_coefficient": _setting(record, "harmful_coefficient"),  # of the additions in all that follows
        "losses": losses(folder),
        "kl_on_answers": divergences(folder),
        "capabilities": capabilities(folder),
        "costs_against_controls": against_controls(folder, cost_conditions(randoms=randoms)),
        "draws": _draws(folder),
    }


def result_sets(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the prompt sets of `results.json` with a row an intervention: the paper's two, then further ones."""
    return {name: results[name] for name in SETS if results.get(name)} | results.get("further", {})


def rate_in(row: Mapping[str, Any], measure: str) -> Mapping[str, Any] | None:
    """Return the rate of a measure in one intervention's row, if it has it: refusals are the row itself, others in it.

    `measure` is "refused", "exact", or the name of a further judge.
    """
    if measure == "refused":
        return row if measure in row else None
    return row.get(measure) or row.get("judges", {}).get(measure)


def random_rows(rows: Mapping[str, Any], kind: Kind) -> list[Mapping[str, Any]]:
    """Return the rows of one set under random directions in the direction's place, ablated or added as it was."""
    found = ((read_condition(name), row) for name, row in rows.items())
    return [row for one, row in found if one and one.source == "random" and one.kind == kind]


def table_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the result table as text, a row a set and intervention."""
    rows: list[dict[str, str]] = []
    for name, found in result_sets(results).items():
        for kind, row in found.items():
            if kind == "random":  # one of the others once more
                continue
            exact = {"exact answers": _text(row["exact"], "exact")} if "exact" in row else {}
            coefficient = f" (c = {row['coefficient']:g})" if "coefficient" in row else ""
            label = kind.replace("_", " ") + coefficient
            rows.append({"prompts": name, "intervention": label, "refused": _text(row, "refused")} | exact)
    return rows


def _text(row: dict[str, Any], word: str) -> str:
    return str(Rate(row[word], row["n"], row.get("undetermined", 0)))


def _rows(
    folder: Path, name: str, listed: Sequence[Condition], record: Mapping[str, Any], measures: Mapping[str, Word]
) -> dict[str, Any]:
    """Return one set's rates; an intervention whose completions are absent (an imported run) is left out."""
    rows = {one.name: row for one in listed if (row := _row(folder, name, one.name, measures))}
    for one in listed:
        if one.kind == "addition" and one.name in rows:
            rows[one.name]["coefficient"] = _setting(record, f"{name}_coefficient") * one.factor
    main = MAIN.get(name, "")
    control = CONTROLS.get(main)
    return rows | ({"random": rows[control] | {"control_of": main}} if control in rows else {})


def _randoms(rows: Mapping[str, Any], main: Kind) -> dict[str, Any]:
    """Return how far the rates of refusal under the several random directions lie apart."""
    rates = [row["rate"] for row in random_rows(rows, main) if row["n"]]
    return spread(rates).record() if rates else {}


def _systems(rates: Mapping[str, Any]) -> dict[str, Any]:
    """Return how far the rates of a set lie apart over the system prompts that it was asked under (paper F.2)."""
    sets: dict[str, list[Any]] = {}
    for name, rows in rates.items():
        sets.setdefault(name.partition("@")[0], []).append(rows)
    return {
        name: {
            condition: _spreads([rows[condition] for rows in several])
            for condition in several[0]
            if all(condition in rows for rows in several)
        }
        for name, several in sets.items()
        if len(several) > 1
    }


def _spreads(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the spread of every rate that all rows have, in their form."""

    def of(rates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        known = [rate["rate"] for rate in rates if rate["n"]]
        return spread(known).record() if known else {}

    exact = {"exact": of([row["exact"] for row in rows])} if all("exact" in row for row in rows) else {}
    judges = [name for name in rows[0].get("judges", {}) if all(name in row.get("judges", {}) for row in rows)]
    further = {name: of([row["judges"][name] for row in rows]) for name in judges}
    return {"refused": of(rows)} | exact | ({"judges": further} if further else {})


def _setting(record: Mapping[str, Any], name: str) -> Any:
    return record["config"][name]["value"]


def _norms(folder: Path) -> dict[str, float]:
    path = folder / "projections.json"
    projected = read_json(path) if path.exists() else None
    return {
        name: projected[key] for name, key in (("direction_norm", "norm"), ("resid_norm", "resid_norm")) if projected
    }


def _row(folder: Path, name: str, kind: str, measures: Mapping[str, Word]) -> dict[str, Any]:
    """Return the rate of refusals; in it that of `exact` answers, and under `judges` that of every further judge."""
    found: dict[str, Any] = {}
    for judge, word in measures.items():
        path = folder / "judgements" / f"{name}.{kind}.{judge}.jsonl"
        if path.exists():
            rate = rate_of(read_verdicts(path), word)
            match judge:
                case "substring":
                    found |= rate.record("refused")
                case "grammar":
                    found["exact"] = rate.record("exact")
                case _:
                    found.setdefault("judges", {})[judge] = rate.record(word)
    return found


def _draws(folder: Path) -> dict[str, Any]:
    """Return how far the choices on other draws of prompts lie apart; empty where there was none."""
    rows = [read_json(path) for path in sorted((folder / "draws").glob("*.json"))]
    chosen = [row for row in rows if "failed" not in row]
    names = ("layer", "position", "cosine", "cosine_same_place", "cosine_random")
    spreads = {name: spread([row[name] for row in chosen]).record() for name in names} if chosen else {}
    return {"n": len(rows), "failed": len(rows) - len(chosen), **spreads} if rows else {}


def _identical(folder: Path, name: str) -> dict[str, int]:
    """Count the completions of the edited weights that equal those under ablation, text for text."""
    pair = [read_rows(folder / "completions" / f"{name}.{kind}.jsonl") for kind in ("weights", "ablation")]
    same = sum(a["response"] == b["response"] and a["tokens"] == b["tokens"] for a, b in zip(*pair, strict=True))
    return {"identical": same, "n": len(pair[0])}
