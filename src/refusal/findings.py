"""What a run folder holds beside its tensors, read and checked, for the report and the explorer. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refusal.errors import BadRunFolder
from refusal.labels import in_order, name_of
from refusal.records import Run, read_json, read_rows
from refusal.results import result_sets
from refusal.verdicts import Word, rank, read_verdicts

Row = Mapping[str, Any]
RATE = ("n", "rate", "low", "high")
USUAL = ("none", "ablation", "addition", "weights")  # conditions whose answers stand side by side


@dataclass(frozen=True)
class Findings:
    """A run as read from disk. What a run may lack is None or empty."""

    folder: Path
    record: Row  # run.json
    results: Row
    selection: Sequence[Row]
    projections: Row | None
    coefficients: Row | None
    coverage: Row | None  # of an edit of the weights; runs of earlier versions lack it
    # Set → intervention, in reading order → rows, with their `verdicts` by judge, the paper's first.
    completions: Mapping[str, Mapping[str, Sequence[Row]]]

    @property
    def tokens(self) -> Sequence[str]:
        """The texts of the post-instruction tokens; empty when the run does not know them."""
        tokens = self.record.get("position_tokens") or []
        return tokens if any(tokens) else []

    def title(self, name: str, condition: str) -> str:
        """Return what a condition is called in one set; of an addition, with its coefficient where it is known."""
        known = result_sets(self.results).get(name, {}).get(condition, {}).get("coefficient")
        return name_of(condition, known)

    def answers(self, name: str, conditions: Iterable[str]) -> dict[str, dict[str, Row]]:
        """Return one set's prompts, each with its (first) answer under every condition asked for that it has."""
        found: dict[str, dict[str, Row]] = {}
        for condition in conditions:
            for row in self.completions[name][condition]:
                found.setdefault(row["prompt"], {}).setdefault(condition, row)
        return found


def is_harmful(name: str) -> bool:
    """Tell whether the prompts of a set are folded: all but those of sets that are called harmless."""
    return not name.startswith("harmless")


def read_findings(folder: Path, *, partial: bool = False) -> Findings:
    """Read a run folder without its tensors; with `partial`, one that has not come to its results yet, too.

    Raises BadRunFolder when a record is missing, is not JSON, or lacks a field that every version of it has.
    """
    record = Run.read(folder).record
    _need(folder / "run.json", record, "model")
    headline, scores = folder / "results.json", folder / "selection.jsonl"
    results = _read_results(headline) if headline.exists() or not partial else {}
    selection = read_rows(scores) if scores.exists() or not partial else []
    for row in selection or [{}] * (not partial):
        _need(scores, row, "position", "layer", "bypass", "induce", "kl", "verdict")
    return Findings(
        folder,
        record,
        results,
        selection,
        _read_if_there(folder / "projections.json", "layers", "harmful", "harmless"),
        _read_if_there(folder / "coefficients.json", "coefficients", "n", "direction", "random"),
        _read_if_there(folder / "coverage.json", "writers", "gaps", "largest_before", "largest_after"),
        read_completions(folder),
    )


def _read_results(path: Path) -> Row:
    results = _read_object(path, "position", "layer", "survivors", "total")
    for rows in result_sets(results).values():
        for row in rows.values():
            _need(path, row, "refused", *RATE)
            if "exact" in row:
                _need(path, row["exact"], "exact", *RATE)
    return results


def _read_object(path: Path, *names: str) -> Row:
    value = read_json(path)
    _need(path, value, *names)
    return value


def _read_if_there(path: Path, *names: str) -> Row | None:
    return _read_object(path, *names) if path.exists() else None


def _need(path: Path, row: Any, *names: str) -> None:
    missing = [name for name in names if not isinstance(row, dict) or name not in row]
    if missing:
        raise BadRunFolder(
            f"{path} lacks {', '.join(missing)}: it is not what this version writes. Remove that file and run again."
        )


def read_completions(folder: Path) -> dict[str, dict[str, list[Row]]]:
    """Read all completions of a run, set → intervention → rows, each with its `verdicts`: see `Findings`.

    Raises BadRunFolder for a broken file, or one with other than a verdict a completion.
    """
    found: dict[str, dict[str, list[Row]]] = {}
    for path in sorted((folder / "completions").glob("*.jsonl")):
        name, _, intervention = path.stem.partition(".")
        rows = read_rows(path)
        for row in rows:
            _need(path, row, "prompt", "response")
        verdicts = _read_verdicts(folder, path.stem, len(rows))
        found.setdefault(name, {})[intervention] = [
            {**row, "verdicts": {judge: given[i] for judge, given in verdicts.items()}} for i, row in enumerate(rows)
        ]
    order = {name: [kind for kind, _ in in_order({each: {} for each in rows})] for name, rows in found.items()}
    return {name: {kind: rows[kind] for kind in order[name]} for name, rows in found.items()}


def _read_verdicts(folder: Path, stem: str, count: int) -> dict[str, list[Word]]:
    """Read every judge's verdicts on one file of completions: judge → a word a row."""
    verdicts = {}
    for path in sorted((folder / "judgements").glob(f"{stem}.*.jsonl")):
        given = read_verdicts(path)
        if len(given) != count:
            raise BadRunFolder(
                f"{path} holds {len(given)} verdicts on {count} completions. Judge them again, or remove that file."
            )
        verdicts[path.stem.removeprefix(f"{stem}.")] = [verdict.word for verdict in given]
    return {judge: verdicts[judge] for judge in sorted(verdicts, key=rank)}
