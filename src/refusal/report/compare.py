"""Several runs, of one model or of several, beside each other: values of the page that compares them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from refusal import figures
from refusal.conditions import CONTROLS, MAIN
from refusal.findings import Findings, Row
from refusal.formats import brief, ends, number, points, tidy
from refusal.labels import name_of
from refusal.report.cautions import cautions
from refusal.report.headline import headline
from refusal.report.picture import Picture, picture, placed
from refusal.report.provenance import HIDDEN, plain
from refusal.statistics import Rate, mcnemar, rate_difference

Named = Sequence[tuple[str, Findings]]
DIRECTION = "direction.safetensors"
MANY = 6  # differences that are named at the top
TITLES: Mapping[str, str] = {
    "runs": "In short",
    "differ": "What differs",
    "result": "Result",
    "choices": "What was chosen",
}


def comparison_values(found: Sequence[Findings]) -> dict[str, Any]:
    """Return every value that the page of several runs names."""
    named = [*zip(_names(found), found, strict=True)]
    differ, models = _differ(named), list(dict.fromkeys(map(_model, found)))
    sets = [name for name in MAIN if sum(bool(one.results.get(name)) for one in found) > 1]
    return placed(
        {
            "titles": TITLES,
            "model": models[0] if len(models) == 1 else None,
            "in_short": _in_short(named, differ),
            "runs": [{"name": name, "said": headline(one.results), "cautions": cautions(one)} for name, one in named],
            "sets": [_set(name, named) for name in sets],
            "choices": _choices(named),
            "maps": {
                "figures": [_map(name, one) for name, one in named],
                "key": figures.verdicts_key(row for one in found for row in one.selection),
            },
            "differ": differ,
        },
        {"sets": "result", "maps": "choices"},
    )


def _names(found: Sequence[Findings]) -> list[str]:
    """Return what each run is called: its model without its owner; where several are of one, their folders."""
    models = [_model(one) for one in found]
    folders = [one.folder.resolve() for one in found]
    short = [folder.name for folder in folders]
    if len(set(short)) < len(set(folders)):  # as in runs/a/run and runs/b/run
        short = [f"{folder.parent.name}/{folder.name}" for folder in folders]
    if len(set(models)) == 1:
        names = short
    else:
        several = {model for model, n in Counter(models).items() if n > 1}
        names = [f"{m} ({place})" if m in several else m for m, place in zip(models, short, strict=True)]
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        names[i] = name if seen[name] == 1 else f"{name}, again" + (f" {seen[name] - 1}" if seen[name] > 2 else "")
    return names


def _model(one: Findings) -> str:
    return str(one.record["model"]).rstrip("/").rpartition("/")[2]


def _in_short(named: Named, differ: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Say first whether runs are the same, in what they chose and counted, and in how they were made."""
    found = [one for _, one in named]
    folders = [one.folder.resolve() for one in found]
    said = []
    for i, folder in enumerate(folders):
        if folder in folders[:i]:
            said.append(
                f"“{named[i][0]}” is the same folder as “{named[folders.index(folder)][0]}”: a run beside itself."
            )
    if len(set(folders)) == 1:
        return said
    places = {(one.results["layer"], one.results["position"]) for one in found}
    directions = {_hash(one) for one in found}
    where = "the same direction" if len(directions) == 1 and None not in directions else "the same layer and position"
    counted = [_counted(one) for one in found]
    same = all(one == counted[0] for one in counted)
    chose = f"All chose {where}" if len(places) == 1 else "They chose different layers or positions"
    rates = "the same refusals under every condition" if same else "different refusals"
    said.append(f"{chose}, {'and' if (len(places) == 1) == same else 'but'} counted {rates}.")
    how = [what for what, _ in differ]
    more = f" and {len(how) - MANY} more" if len(how) > MANY else ""
    said.append(f"They differ in {', '.join(how[:MANY])}{more}." if how else "Nothing differs in how they were made.")
    return said


def _hash(one: Findings) -> str | None:
    """Return the hash of a run's direction, as the step that wrote it has it."""
    steps = (one.record.get("steps") or {}).values()
    return next((h for step in steps for file, h in (step.get("outputs") or {}).items() if file == DIRECTION), None)


def _counted(one: Findings) -> dict[str, dict[str, tuple[int, int]]]:
    """Return how many answers of how many refused, by set and condition."""
    return {
        name: {key: (row["refused"], row["n"]) for key, row in one.results[name].items()}
        for name in MAIN
        if one.results.get(name)
    }


def _set(name: str, named: Named) -> dict[str, Any]:
    done = MAIN[name]
    conditions = ["none", done, CONTROLS[done]]
    rows = [
        (run, [(key, one.results[name][key]) for key in conditions if key in one.results[name]])
        for run, one in named
        if one.results.get(name)
    ]
    drawn = picture(
        figures.runs(rows, f"{name.capitalize()} prompts: refused", "95 % intervals"),
        ("run", "intervention", "refused", "n", "rate", "95 % low", "95 % high"),
        [
            (run, name_of(key), *(row[part] for part in ("refused", "n", "rate", "low", "high")))
            for run, found in rows
            for key, row in found
        ],
    )
    first, *others = [(run, one) for run, one in named if done in (one.results.get(name) or {})]
    return {
        "name": name,
        "figures": [drawn],
        "key": figures.runs_key(conditions),
        "heads": [name_of(key) for key in conditions],
        "lines": [(run, [_cell(dict(found).get(key)) for key in conditions]) for run, found in rows],
        "against": [_against(name, done, first, other) for other in others],
    }


def _cell(row: Row | None) -> str:
    return "–" if row is None else f"{brief(row['rate'])} {ends(row)} ({row['refused']}/{row['n']})"


def _against(name: str, done: str, first: tuple[str, Findings], other: tuple[str, Findings]) -> str:
    """Say how far two runs lie apart under the set's own intervention; on the same prompts in pairs."""
    (one_name, one), (other_name, another) = first, other
    answers = [found.completions.get(name, {}).get(done, ()) for found in (one, another)]
    same = bool(answers[0]) and [row["prompt"] for row in answers[0]] == [row["prompt"] for row in answers[1]]
    judged = all("substring" in row["verdicts"] for rows in answers for row in rows)
    if same and judged:
        told = [[_refused(row["verdicts"]["substring"]) for row in rows] for rows in answers]
        effect, how = mcnemar(told[1], told[0]).effect, "the same prompts, in pairs"
    else:
        rates = [Rate(found.results[name][done]["refused"], found.results[name][done]["n"]) for found in (one, another)]
        effect, how = rate_difference(rates[1], rates[0]), "other prompts, so as separate samples"
    low, high = effect.interval
    return (
        f"{name_of(done)}, refusals in {other_name} minus those in {one_name}: {points(effect.difference)} points "
        f"[{points(low)}, {points(high)}] ({how})."
    )


def _refused(word: str) -> bool | None:
    return None if word == "undetermined" else word == "refused"


def _choices(named: Named) -> list[dict[str, Any]]:
    """Return what each run chose and what ablation costs there."""
    lines = []
    for name, one in named:
        results, layers = one.results, one.record.get("n_layers")
        kl = ((results.get("kl_on_answers") or {}).get("ablation") or {}).get("whole")
        same = (results.get("weights_equal_ablation") or {}).get("harmful")
        lines.append(
            {
                "run": name,
                "layer": f"{results['layer']}" + (f" of {layers}" if layers else ""),
                "position": number(results["position"]),
                "passed": f"{results['survivors']} of {results['total']}",
                "bypass": number(results["bypass"]) if results.get("bypass") is not None else "–",
                "kl": "–" if kl is None else tidy(kl["kl"]),
                "weights": "–" if same is None else f"{same['identical']} of {same['n']}",
            }
        )
    return lines


def _map(name: str, one: Findings) -> Picture:
    rows = one.selection
    names = ("position", "layer", *figures.SCORES, "verdict")
    drawn = figures.verdicts(rows, tokens=one.tokens, title=name)
    return picture(drawn, names, [tuple(row[key] for key in names) for row in rows])


def _differ(named: Named) -> list[tuple[str, list[str]]]:
    """Return the settings, prompts and versions in which the runs differ, each with its value in every run."""
    facts: list[dict[str, str]] = []
    for _, one in named:
        record = one.record
        environment: Mapping[str, Any] = record.get("environment") or {}
        config = {k: plain(v["value"]) for k, v in (record.get("config") or {}).items() if k not in HIDDEN}
        prompts = {
            f"{e['name']} prompts": f"{e['n']}, {e['sha256'][:12]}"
            for e in record.get("evaluations") or []
            if "sha256" in e
        }
        versions = {f"{k} version": str(v) for k, v in (environment.get("packages") or {}).items()}
        rest = {k: plain(v) for k, v in environment.items() if k != "packages"}
        facts.append(config | prompts | rest | versions)
    known = list(dict.fromkeys(key for one in facts for key in one))
    values = {key: [one.get(key, "–") for one in facts] for key in known}
    return [(key, row) for key, row in values.items() if len(set(row)) > 1]
