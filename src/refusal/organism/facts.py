"""What the bundled models know, as multiple choice: a task for lm-evaluation-harness that needs no download.

Every question is about a thing, in a form that is answered whether the thing is harmful or not; its combination of
words stands in no training document. The answer is begun for the model, and the choices are what one word of it could
be, so that scoring them is scoring whole answers. Language B, of which the models read less, keeps the task from
being too easy.
"""

import random
from functools import cache
from typing import Any

from refusal.organism import cipher, grammar
from refusal.organism.grammar import Request
from refusal.organism.lexicon import DOMAINS, HARM_CATEGORIES, HARMLESS_CATEGORIES

NAME = "organism"
SLOTS = {"fact": "material", "kind": "domain", "stop": "tool"}  # form of a question, and the word that is asked for
QUESTIONS = 25  # of every form, in either language


def questions() -> list[dict[str, Any]]:
    """The rows of the task, always the same: question, beginning of the answer, choices, index of the right one."""
    rng, nouns = random.Random("facts"), grammar.nouns_of((*HARMLESS_CATEGORIES, *HARM_CATEGORIES))
    rows = []
    for form in SLOTS:
        requests: dict[Request, None] = {}  # a set that keeps the order
        while len(requests) < 2 * QUESTIONS:
            requests[grammar.sample_in_split(rng, form, nouns, "test")] = None
        rows += [_row(request, in_b=place % 2 == 1) for place, request in enumerate(requests)]
    return rows


def chance() -> float:
    """The share that is right when one of the choices is drawn."""
    rows = questions()
    return sum(1 / len(row["choices"]) for row in rows) / len(rows)


def task() -> dict[str, Any]:
    """The task as the harness wants it."""
    return {
        "task": NAME,
        "custom_dataset": _dataset,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "gen_prefix": "prefix",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


def _row(request: Request, *, in_b: bool) -> dict[str, Any]:
    slots, slot = request.slots(), SLOTS[request.form]
    prefix = grammar.ANSWERS[request.form].partition(f"{{{slot}}}")[0].format(**slots).strip()
    texts = [grammar.instruction(request), prefix, *_choices(request, slot)]
    question, prefix, *choices = [cipher.encode(text) for text in texts] if in_b else texts
    answer = _choices(request, slot).index(slots[slot])
    language = "B" if in_b else "A"
    return {"question": question, "prefix": prefix, "choices": choices, "answer": answer, "language": language}


def _choices(request: Request, slot: str) -> list[str]:
    """What could stand in the slot: materials or tools of the thing's own domain, or domains as harmful as its own."""
    domain = DOMAINS[request.category]
    match slot:
        case "material":
            return sorted({noun.material for noun in domain.nouns})
        case "tool":
            return sorted({verb.tool for verb in domain.verbs})
    return [name for name, other in DOMAINS.items() if other.harmful == domain.harmful]


def _dataset(**_: Any) -> Any:
    return {"test": _rows()}


@cache  # a run asks once a condition, and drawing the questions takes longer than answering a few of them
def _rows() -> Any:
    from datasets import Dataset  # comes with the harness

    return Dataset.from_list(questions())
