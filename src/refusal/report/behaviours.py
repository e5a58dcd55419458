"""How else the edited model behaves, as the page shows it (paper Figures 27 to 29): rates, and answers side by side."""

from refusal import figures
from refusal.comparisons import LEVEL
from refusal.formats import points, share_text, shortened, span
from refusal.labels import Row, name_of
from refusal.report.measured import Measured
from refusal.report.section import Section, Table
from refusal.results import rate_in

CHANGED = {"ablation": "with the direction ablated", "random_ablation": "with a random one"}
DONE = ("none", *CHANGED)
LONGEST = 240  # characters of an answer shown


def section(record: Measured) -> Section:
    """Return what is said of the edited model's behaviours, their rates, and a few answers side by side."""
    kinds = record.facts["asked"]
    said = [_said(name, kind) for name, kind in kinds.items()]
    said.append(
        "Ablation by hooks stands for the edited weights here; unchanged is the same text as without intervention. The "
        "p of the exact McNemar test on the same prompts is not corrected for the number of tests, and a difference "
        "that is not shown may still be as large as its interval."
    )
    return Section(
        "How else the edited model behaves",
        said,
        figures=[figure for name, kind in kinds.items() for figure in _figures(name, kind["rates"])],
        table=Table(
            ["Kind", "Asked", *(name_of(name) for name in DONE)],
            [
                [name, one["prompt"], *(shortened(one["answers"][done], LONGEST) for done in DONE)]
                for name, kind in kinds.items()
                for one in kind["shown"]
            ],
        ),
    )


def _said(name: str, kind: Row) -> str:
    """Say how many answers are right (else: refusals) and how many unchanged, under each intervention."""
    found, measure = kind["rates"], _measure(kind["rates"])
    rates = {done: rate for done in DONE if (rate := rate_in(found[done], measure))}
    what = f"right ({kind['right']})" if measure == "right" else "refusals"
    moved = ", ".join(
        f"{share_text(rates[done])} {words} ({_tested(kind['tests'][done])})" for done, words in CHANGED.items()
    )
    same = ", ".join(f"{share_text(found[done]['same'])} {words}" for done, words in CHANGED.items())
    return (
        f"{_title(name)} ({found['none']['n']} prompts): {what} are {share_text(rates['none'])} of the "
        f"answers without intervention, {moved}. Unchanged are {same}."
    )


def _tested(test: Row) -> str:
    if test["p_value"] < LEVEL:
        return f"{points(test['difference'])} points, p = {test['p_value']:.1g}"
    return f"no difference shown: {span(test, points)} points"


def _figures(name: str, found: Row) -> list[str]:
    measure = _measure(found)
    rows, title = [(done, found[done]) for done in DONE], _title(name)
    return [
        figures.rates(rows, f"{title}: {'right' if measure == 'right' else 'refused'}", measure=measure),
        figures.rates(rows[1:], f"{title}: unchanged", measure="same"),
    ]


def _measure(found: Row) -> str:
    """Return what counts: right answers where a rule can tell, else refusals."""
    return "right" if "right" in found["none"] else "refused"


def _title(name: str) -> str:
    return f"Asked to {name}" if name.startswith("repeat") else name.capitalize()
