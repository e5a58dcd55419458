"""What to know before quoting a run: checks of its numbers, each with what was found; nothing found is said, too."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from refusal.conditions import MAIN, read_condition
from refusal.findings import Findings, Row
from refusal.formats import brief, ends, extent, number, percent
from refusal.labels import in_order, name_of
from refusal.report.judges import agreement
from refusal.results import random_rows, result_sets

FEW = 100  # prompts, below which a rate's interval is up to 10 points wide to either side
BIT = 0.8  # share left by a filter, below which it is said
UNFINISHED = 0.1  # share of answers that were cut off
REFUSES = 0.5  # of harmful prompts, below which there is little to take away
REFUSES_HARMLESS = 0.1


def cautions(findings: Findings) -> list[str]:
    """Return the warnings of a run, in sentences."""
    results = findings.results
    found: list[str] = []
    for name, rows in result_sets(results).items():
        found += [*_few(name, rows), *_undetermined(name, rows), *_start(name, rows), *_reversed(name, rows)]
        found += [*_controls(name, rows), *_unfinished(name, findings.completions.get(name, {}))]
        found += _disagree(name, findings.completions.get(name, {}))
    return [*found, *_filters(findings.record), *_draws(results), *_weights(results)]


def _few(name: str, rows: Mapping[str, Row]) -> Iterator[str]:
    main = _main(name, rows).values()
    judged, asked = (min(row["n"] + left * row.get("undetermined", 0) for row in main) for left in (False, True))
    if 0 < judged < FEW:
        few = "were tested" if judged == asked else f"of {asked} were tested with an answer that could be judged"
        yield f"Only {judged} {name} prompts {few}: the intervals are wide."


def _undetermined(name: str, rows: Mapping[str, Row]) -> Iterator[str]:
    """Yield what each judge left open, and where most."""
    judges = dict.fromkeys(judge for row in rows.values() for judge in row.get("judges") or {})
    for judge in (None, *judges):
        given = {key: row if judge is None else (row.get("judges") or {}).get(judge) for key, row in in_order(rows)}
        left = {key: row["undetermined"] for key, row in given.items() if row and row.get("undetermined")}
        if left:
            key = max(left, key=left.__getitem__)
            yield (
                f"{judge or 'The judge of refusals'} left answers to {name} prompts undetermined, most of them with "
                f"{name_of(key).lower()}: {left[key]} of {left[key] + (given[key] or {})['n']}. They are in no rate."
            )


def _start(name: str, rows: Mapping[str, Row]) -> Iterator[str]:
    plain = rows.get("none")
    if plain is None or plain["rate"] is None:
        return
    if MAIN.get(name) == "ablation" and plain["rate"] < REFUSES:
        yield (
            f"Without intervention the model refuses only {brief(plain['rate'])} {ends(plain)} of the {name} prompts: "
            "there is little to take away."
        )
    if MAIN.get(name) == "addition" and plain["rate"] > REFUSES_HARMLESS:
        yield f"Already without intervention {brief(plain['rate'])} {ends(plain)} of the {name} prompts are refused."


def _reversed(name: str, rows: Mapping[str, Row]) -> Iterator[str]:
    plain, main = rows.get("none"), rows.get(MAIN.get(name, ""))
    if not (plain and main) or not (plain["n"] and main["n"]) or _overlap(plain, main):
        return
    if (main["rate"] > plain["rate"]) == (MAIN[name] == "ablation"):
        yield (
            f"{name_of(MAIN[name])} does the opposite of what it is for: refusals of {name} prompts go from "
            f"{brief(plain['rate'])} to {brief(main['rate'])} {ends(main)}."
        )


def _controls(name: str, rows: Mapping[str, Row]) -> Iterator[str]:
    """Yield where a control does as much as the direction, and where any vector of its length spoils answers."""
    main = rows.get(MAIN.get(name, "ablation"))
    if main is None:
        return
    kind = MAIN.get(name, "ablation")
    plain = rows.get("none")
    if plain and _overlap(main, plain):
        yield f"{name_of(kind)} is not told from no intervention on {name} prompts: the intervals overlap."
    for key, row in in_order(rows):
        condition = read_condition(key)
        if condition is None or not condition.is_control or condition.kind != kind:
            continue
        if _overlap(main, row):
            yield (
                f"On {name} prompts the control “{name_of(key).lower()}” ({brief(row['rate'])} refused {ends(row)}) "
                f"overlaps with {name_of(kind).lower()} ({brief(main['rate'])} {ends(main)})."
            )
    if not any((c := read_condition(key)) and c.is_control and c.kind == kind for key in rows):
        yield f"No control was measured on {name} prompts: whether another vector does the same is not known."
    spoiled = [row["exact"] for row in random_rows(rows, kind) if "exact" in row]
    if plain and "exact" in plain and any(row["high"] < plain["exact"]["low"] for row in spoiled):
        shares = [row["rate"] for row in spoiled]
        yield (
            f"Random directions in place of the direction spoil answers to {name} prompts, too: "
            f"{extent({'min': min(shares), 'max': max(shares)}, percent)} are still exact, against "
            f"{percent(plain['exact']['rate'])} without intervention. A vector of this length is a strong push."
        )


def _main(name: str, rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return the rows that the headline is made of, or where a set has none of them every row."""
    return {key: rows[key] for key in ("none", MAIN.get(name, "")) if key in rows} or dict(rows)


def _overlap(first: Row, second: Row) -> bool:
    """Tell whether two rates may be the same; of nothing there is no rate."""
    return bool(first["n"] and second["n"]) and first["low"] <= second["high"] and second["low"] <= first["high"]


def _unfinished(name: str, answers: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    for kind in ("none", "ablation", "addition"):
        rows = answers.get(kind, ())
        cut = sum(row.get("finished") is False for row in rows)
        if rows and cut / len(rows) > UNFINISHED:
            yield f"{name_of(kind)}, {name} prompts: {cut} of {len(rows)} answers were cut off at the limit of length."


def _disagree(name: str, answers: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    for line in agreement(answers):
        if line["doubtful"]:
            first, second = line["judges"]
            yield (
                f"{first} and {second} disagree on who refused {name} prompts: they agree on {line['agreed']} answers, "
                f"κ = {line['kappa']}."
            )


def _filters(record: Row) -> Iterator[str]:
    for part, row in (record.get("filtering") or {}).items():
        if row["before"] and row["after"] / row["before"] < BIT:
            yield f"Of {row['before']} {part.replace('_', ' ')} prompts the refusal metric left {row['after']}."
    for part, row in (((record.get("prompts") or {}).get("sample") or {}).get("parts") or {}).items():
        if row.get("asked") and row["count"] < row["asked"]:
            yield f"Only {row['count']} {part.replace('_', ' ')} prompts were there, of {row['asked']} asked for."


def _draws(results: Row) -> Iterator[str]:
    draws: Any = results.get("draws") or {}
    if draws.get("failed"):
        yield f"On {draws['failed']} of {draws['n']} other draws of prompts no direction was found."
    for axis in ("layer", "position"):
        spread = draws.get(axis)
        if spread and (spread["min"], spread["max"]) != (results[axis], results[axis]):
            yield (
                f"Other draws of prompts chose {axis} {extent(spread, number)}, this one {number(results[axis])}: do "
                f"not rely on the {axis} itself."
            )


def _weights(results: Row) -> Iterator[str]:
    for name, row in (results.get("weights_equal_ablation") or {}).items():
        if row["identical"] == row["n"]:
            continue
        hooks, edited = (results.get(name, {}).get(kind) for kind in ("ablation", "weights"))
        told = f"Edited weights gave the text of ablation by hooks for {row['identical']} of {row['n']} {name} prompts"
        if not (hooks and edited and hooks["n"] and edited["n"]):
            yield f"{told}."
            continue
        rates = f"{brief(edited['rate'])} {ends(edited)} refused, with hooks {brief(hooks['rate'])} {ends(hooks)}"
        why = "rounding can do that, as the rates agree" if _overlap(hooks, edited) else "that is more than rounding"
        yield f"{told}: {rates}; {why}."
