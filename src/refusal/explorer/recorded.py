"""Records of a run → values of the page: results, figures, completions side by side. No model, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refusal import figures
from refusal.findings import read_completions
from refusal.formats import coefficient_text
from refusal.labels import Row, in_order, label_of, name_of
from refusal.records import Run, read_json, read_rows
from refusal.results import result_sets

SHOWN = ("none", "ablation", "addition", "weights")
PAGE = 5  # prompts at a time
EVERYTHING, CHANGED = "every prompt", "where the judge's word changes"
FILTERS = (EVERYTHING, CHANGED)


@dataclass(frozen=True)
class Records:
    """A run as read from disk, as far as it has come; what is not there yet is empty."""

    folder: Path
    record: Row  # run.json
    selection: Sequence[Row]
    results: Row
    projections: Row
    coefficients: Row
    completions: Mapping[str, Mapping[str, Sequence[Row]]]

    @property
    def tokens(self) -> list[str]:
        """The texts of the post-instruction tokens; empty when the run does not know them."""
        tokens = list(self.record.get("position_tokens") or [])
        return tokens if any(tokens) else []


def read_records(folder: Path) -> Records:
    """Read whatever a run folder holds by now. Raises BadRunFolder when it is none, or a record in it is broken."""

    def there(name: str) -> Any:
        path = folder / name
        return read_json(path) if path.exists() else {}

    record, selection = Run.read(folder).record, folder / "selection.jsonl"
    return Records(
        folder,
        record,
        read_rows(selection) if selection.exists() else [],
        there("results.json"),
        there("projections.json"),
        there("coefficients.json"),
        read_completions(folder),
    )


def results(records: Records) -> dict[str, Any]:
    """Return the values of the results: bars of every set, and the figures that the run has numbers for."""
    bars = []
    for name, rows in result_sets(records.results).items():
        listed = in_order(rows)
        bars.append(figures.rates(listed, f"{name.capitalize()} prompts: refused"))
        if any("exact" in row for _, row in listed):
            bars.append(figures.rates(listed, f"{name.capitalize()} prompts: exact answers", measure="exact"))
    more = []
    if records.projections and "layer" in records.results:
        drawn = figures.projections(records.projections, layer=records.results["layer"])
        more.append({"figure": drawn, "key": figures.projections_key()})
    if records.coefficients:
        more.append({"figure": figures.coefficients(records.coefficients), "key": figures.coefficients_key()})
    report = (records.folder / "report.html").exists()
    return {"model": records.record.get("model", ""), "bars": bars, "more": more, "report": report}


def conditions(records: Records, name: str) -> list[tuple[str, str]]:
    """Return the recorded conditions of a set, in reading order: (what they are called, their name)."""
    listed = in_order({condition: {} for condition in records.completions.get(name, {})})
    return [(_title(records, name, condition), condition) for condition, _ in listed]


def usual(records: Records, name: str) -> list[str]:
    """Return the conditions of a set that are shown unless others are chosen."""
    there = [condition for _, condition in conditions(records, name)]
    return [condition for condition in SHOWN if condition in there] or there[:4]


def answers(
    records: Records, name: str, shown: Sequence[str], *, text: str = "", which: str = EVERYTHING, page: int = 1
) -> dict[str, Any]:
    """Return one page of a set's prompts with their answers; harmful ones are folded.

    `text` is looked for in prompts and answers, in any case; `which` is one of FILTERS.
    """
    known = records.completions.get(name, {})
    titles = {condition: title for title, condition in conditions(records, name) if condition in shown}
    kinds = list(titles)
    by_prompt = {kind: {row["prompt"]: row for row in reversed(known[kind])} for kind in kinds}
    prompts = list(dict.fromkeys(row["prompt"] for kind in kinds for row in known[kind]))
    cards = [
        {
            "number": i,
            "prompt": prompt,
            "answers": [
                _answer(titles[kind], kind, by_prompt[kind][prompt]) for kind in kinds if prompt in by_prompt[kind]
            ],
        }
        for i, prompt in enumerate(prompts, start=1)
    ]
    found = [card for card in cards if _holds(card, text.strip().lower()) and (which != CHANGED or _changes(card))]
    pages = max(1, -(-len(found) // PAGE))
    at = min(max(1, page), pages)
    return {
        "cards": found[(at - 1) * PAGE : at * PAGE],
        "found": len(found),
        "total": len(prompts),
        "page": at,
        "pages": pages,
        "folded": name != "harmless",
    }


def _title(records: Records, name: str, condition: str) -> str:
    """Return what a condition is called; of an addition, with its coefficient where the results know it."""
    known = records.results.get(name, {}).get(condition, {}).get("coefficient")
    return name_of(condition, strength=known is None) + ("" if known is None else f", {coefficient_text(known)}")


def _answer(title: str, kind: str, row: Row) -> dict[str, Any]:
    judged = sorted(row["verdicts"].items(), key=lambda one: (one[0] != "substring", one[0]))
    return {
        "title": title,
        "colour": label_of(kind).colour,
        "text": row["response"],
        "verdicts": [{"judge": judge, "word": word} for judge, word in judged],
        "cut": row.get("finished") is False,
    }


def _holds(card: Mapping[str, Any], text: str) -> bool:
    return not text or any(text in each.lower() for each in (card["prompt"], *(a["text"] for a in card["answers"])))


def _changes(card: Mapping[str, Any]) -> bool:
    """Tell whether the first judge says different things of the answers to one prompt."""
    return len({answer["verdicts"][0]["word"] for answer in card["answers"] if answer["verdicts"]}) > 1
