"""Which model a page is about, and what was found, in words for somebody who has not read the paper."""

from collections.abc import Mapping
from typing import Any

from refusal.conditions import MAIN
from refusal.config import BUNDLED
from refusal.findings import Findings, Row
from refusal.report.headline import differs
from refusal.results import random_rows

SIZE = "2.2 million parameters"  # of the bundled model
FEW = 0.1  # a rate whose interval ends below it is said to be hardly any, and one above 1 − FEW nearly all
TOY = (
    "This is a toy: a very small model that was trained to refuse, for showing the method. What it does says nothing "
    "of other models."
)
# Whether refusals go when the direction is ablated, whether they come when it is added → what is said.
TOLD = {
    (True, True): "Here refusals {go} with the one and {come} with the other",
    (True, False): "Here refusals {go} when it is ablated; that they come when it is added is not shown",
    (False, True): "Here refusals {come} when it is added; that they go when it is ablated is not shown",
    (False, False): "Neither is shown to do here what it is for",
}


def make_believe(findings: Findings, name: str) -> bool:
    """Tell whether all prompts of a set are of the bundled language, whose judge knows them: there is no harm in it."""
    words = [row["verdicts"].get("grammar") for rows in findings.completions.get(name, {}).values() for row in rows]
    return bool(findings.record.get("grammar")) and {None, "undetermined"}.isdisjoint(words)


def subtitle(record: Row) -> str:
    """Say that a model is no real one, or that its prompts are not; of others there is nothing to say."""
    language = "an invented language in which all harm is make-believe"
    if not record.get("grammar"):
        return ""
    if record["model"] == BUNDLED:
        return f"The bundled model: {SIZE}, trained for this package on {language}."
    return f"Asked in the language of the bundled model, {language}."


def toy(record: Row) -> list[str]:
    """Return what has to be said first, before the bundled model is quoted."""
    return [TOY] if record.get("grammar") and record["model"] == BUNDLED else []


def meaning(results: Row) -> str:
    """Say in words what the headline says in numbers; empty where a half of it was not measured."""
    harmful, harmless = (results.get(name) or {} for name in MAIN)
    if not (_counted(harmful, "none", "ablation") and _counted(harmless, "none", "addition")):
        return ""
    plain, ablated = harmful["none"], harmful["ablation"]
    untouched, added = harmless["none"], harmless["addition"]
    gone = differs("harmful", "ablation", plain, ablated, results) and ablated["rate"] < plain["rate"]
    came = differs("harmless", "addition", untouched, added, results) and added["rate"] > untouched["rate"]
    words = {"go": "vanish" if ablated["high"] < FEW else "become fewer"}
    words["come"] = "appear" if added["low"] > 1 - FEW else "become more"
    said = TOLD[gone, came].format(**words)
    removing = [row for row in random_rows(harmful, "ablation") if row["n"]]
    adding = [row for row in random_rows(harmless, "addition") if row["n"]]
    apart = all(row["low"] > ablated["high"] for row in removing) and all(row["high"] < added["low"] for row in adding)
    if gone and came and removing and adding and apart:
        return f"{said}, and random directions do neither: in this model, refusing depends on that one direction."
    return f"{said}."


def _counted(rows: Mapping[str, Any], *names: str) -> bool:
    return all(name in rows and rows[name]["n"] for name in names)
