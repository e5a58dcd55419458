"""What an intervention costs, as the page shows it: losses, benchmarks, divergences, each against its controls."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from refusal.comparisons import LEVEL
from refusal.conditions import read_condition
from refusal.findings import Findings, Row
from refusal.formats import coefficient_text, percent, points, signed, span, tidy
from refusal.labels import in_order, label_of, name_of
from refusal.records import read_rows

Namer = Callable[[str], str]
CARRIED = 0.5  # share of the KL, from which prompts are said to carry it
CORPORA = {  # what it is called, what the paper has for it
    "texts": ("Texts", "the Pile"),
    "pairs": ("Questions and answers", "Alpaca"),
    "completions": ("Own answers", ""),
}


def costs(findings: Findings) -> dict[str, Any]:
    """Return what each intervention costs; what was not measured is empty, with its reason where one is known."""
    results, reasons = findings.results, findings.record.get("choices") or {}
    losses, name = results.get("losses") or {}, partial(_name, coefficient=results.get("costs_coefficient"))
    missing = {name: reasons[name] for name in ("texts", "pairs") if name in reasons and name not in losses}
    return {
        "losses": _losses(losses, name, findings.record.get("corpora") or {}),
        "losses_missing": [f"{CORPORA[name][0]}: {reason}" for name, reason in missing.items()],
        "capabilities": _capabilities(results.get("capabilities") or {}, name),
        "capabilities_missing": reasons.get("capabilities", ""),
        "divergences": _divergences(results.get("kl_on_answers") or {}, name),
        "carried": _carried(findings),
        "against": _against(results.get("costs_against_controls") or [], name),
    }


def _name(condition: str, coefficient: float | None) -> str:
    """Return a condition's name, of an addition with its coefficient: on harmless answers it is not the other one."""
    found = read_condition(condition)
    added = found is not None and found.kind == "addition"
    return name_of(condition) + (f", {coefficient_text(coefficient)}" if added and coefficient is not None else "")


def _against(rows: Sequence[Row], name: Namer) -> dict[str, Any] | None:
    """Return how much more the direction costs than its controls: a line a measure, from the least to the greatest."""
    if not rows:
        return None
    kinds = list(dict.fromkeys(row["first"] for row in rows))
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    lines = [
        (measure, [_apart([r for r in rows if (r["measure"], r["first"]) == (measure, kind)]) for kind in kinds])
        for measure in measures
    ]
    return {"heads": [name(kind) for kind in kinds], "lines": lines}


def _apart(rows: Sequence[Row]) -> dict[str, str]:
    if not rows:
        return {"reach": "–", "said": ""}
    text = tidy if rows[0]["measure"].startswith(("loss", "KL")) else points
    low, high = (text(pick(row["difference"] for row in rows)) for pick in (min, max))
    others = [name_of(row["second"]).lower() for row in rows if row["p_holm"] < LEVEL]
    told = "no difference shown" if not others else f"differs from {len(others)} of {len(rows)}"
    return {"reach": low if low == high else f"{low} to {high}", "said": told}


def _losses(losses: Mapping[str, Mapping[str, Row]], name: Namer, about: Mapping[str, Row]) -> dict[str, Any] | None:
    if not losses:
        return None
    corpora = [corpus for corpus in CORPORA if corpus in losses]
    conditions = _conditions(losses.values())
    lines = [
        {
            "condition": name(condition),
            "control": label_of(condition).control,
            "cells": [_loss(losses[corpus].get(condition)) for corpus in corpora],
        }
        for condition in conditions
    ]
    counts = [next(iter(losses[corpus].values())) for corpus in corpora]
    heads = [
        {"name": CORPORA[corpus][0], "note": _source(about.get(corpus) or {}, CORPORA[corpus][1]) + _count(row)}
        for corpus, row in zip(corpora, counts, strict=True)
    ]
    return {"heads": heads, "lines": lines}


def _source(about: Row, paper: str) -> str:
    """Say where documents come from, and what the paper has in their place."""
    own = about.get("source") or ""
    same = paper.removeprefix("the ").lower() in own.lower()
    there = f"(the paper: {paper})" if paper and not same else ""
    said = " ".join(filter(None, (own, there)))
    return f"{said}; " if said else ""


def _count(row: Row) -> str:
    documents = f"{row['n_documents']:,} documents, " if "n_documents" in row else ""
    return f"{documents}{row['n_tokens']:,} tokens"


def _loss(row: Row | None) -> dict[str, str]:
    if row is None:
        return {"value": "–", "change": "", "interval": ""}
    change = row.get("change")
    if change is None:
        return {"value": f"{row['ce_loss']:.3f}", "change": "", "interval": span(row, partial(signed, form=".3f"))}
    return {
        "value": f"{row['ce_loss']:.3f}",
        "change": signed(change["change"]),
        "interval": span(change, signed),
    }


def _capabilities(tasks: Mapping[str, Mapping[str, Row]], name: Namer) -> dict[str, Any] | None:
    if not tasks:
        return None
    conditions = _conditions(tasks.values())
    lines = [
        {
            "condition": name(condition),
            "control": label_of(condition).control,
            "cells": [_score(rows.get(condition)) for rows in tasks.values()],
        }
        for condition in conditions
    ]
    heads = [{"name": task, "note": f"{next(iter(rows.values()))['n']} questions"} for task, rows in tasks.items()]
    return {"heads": heads, "lines": lines}


def _score(row: Row | None) -> dict[str, str]:
    if row is None:
        return {"value": "–", "change": "", "interval": ""}
    apart = row.get("difference")
    if apart is None:
        return {"value": percent(row["mean"]), "change": "", "interval": span(row, percent)}
    return {"value": percent(row["mean"]), "change": points(apart["difference"]), "interval": span(apart, points)}


def _divergences(kl: Mapping[str, Row], name: Namer) -> list[dict[str, Any]]:
    return [
        {
            "condition": name(condition),
            "control": label_of(condition).control,
            "cells": [
                {"value": tidy(row[part]["kl"]), "change": "", "interval": span(row[part], tidy)}
                for part in ("first", "whole")
            ],
            "n": row["whole"]["n_documents"],
        }
        for condition, row in in_order(kl)
    ]


def _carried(findings: Findings) -> str:
    """Say which prompts carry the KL at the first token, where those are the few that the model refuses anyway.

    It is small where the direction was chosen, because such prompts are filtered out of the validation set.
    """
    path, plain = findings.folder / "losses" / "kl.ablation.jsonl", findings.completions.get("harmless", {}).get("none")
    if not path.exists() or not plain:
        return ""
    first = [row["first"] for row in read_rows(path)]
    refused = [row["verdicts"].get("substring") == "refused" for row in plain]
    if len(first) != len(refused) or not any(refused) or not sum(first):
        return ""
    share = sum(kl for kl, no in zip(first, refused, strict=True) if no) / sum(first)
    if share < CARRIED or all(refused):
        return ""
    others = fmean(kl for kl, no in zip(first, refused, strict=True) if not no)
    chosen = findings.results.get("kl")
    told = "" if chosen is None else f"; where the direction was chosen, without such prompts, it was {tidy(chosen)}"
    return (
        f"The KL at the first token under ablation, {tidy(fmean(first))} on {len(first)} harmless test prompts, is "
        f"carried by the {sum(refused)} of them that the model refuses without any intervention ({percent(share)} of "
        f"it): there ablation is meant to change the answer. On the others it is {tidy(others)}{told}."
    )


def _conditions(measured: Iterable[Mapping[str, Row]]) -> list[str]:
    """Return every condition that something was measured under, in reading order."""
    return [name for name, _ in in_order({name: row for rows in measured for name, row in rows.items()})]
