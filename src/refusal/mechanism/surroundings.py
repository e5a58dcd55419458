"""Where a run's direction can be carried to: its base model, and the bundled model's other checkpoint and language."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from refusal.config import BUNDLED
from refusal.direction import Direction
from refusal.errors import BadSetting, NoDirection, TooFewPrompts
from refusal.mechanism.measurement import Measurement
from refusal.mechanism.relatives import open_base
from refusal.mechanism.sources import Side, Source, find_source
from refusal.mechanism.subject import Subject
from refusal.mechanism.transfer import measure_transfer
from refusal.model import load_model
from refusal.prompts import Prompt, PromptSet, load_prompts

# For the bundled model, whose refusals mostly begin with what makes them one: the whole matrix in half a minute.
PROMPTS = 32
OPENING, THOUGHT = 16, 48  # tokens: the beginning of an answer, and a thought with the beginning of an answer


def transfer_of(subject: Subject) -> Measurement:
    """Carry the direction of a run to the base model, and that of the bundled model also to its other ones.

    Every side gets a direction of its own where the selection rule finds one; the base model, and the bundled model's
    second language, also where it finds none: at the place of the run's. `facts` says which side has none and why.
    Any other models and sets are for `measure_transfer`. Raises BadSetting where there is neither a base model nor the
    bundled one, UnsupportedModel for a base model of another shape.
    """
    bundled = subject.model.name == BUNDLED
    if subject.base is None and not bundled:
        raise BadSetting(
            f"The direction of {subject.model.name} was carried nowhere: no other model or prompt set was named. Name "
            "the base model with --base, or give models and sets of yours to refusal.mechanism.measure_transfer."
        )
    own = _own(subject)
    train = {name: subject.train[name] for name in ("harmful", "harmless")}
    sources = [Source(own.name, subject.direction, subject.model, subject.candidates, train)]
    sides, without = _bundled(subject, own) if bundled else [own, _base(subject, own)], {}
    places: Mapping[str, Direction] = dict.fromkeys(("base", "chat B"), subject.direction)
    for side in sides[1:]:
        try:
            how: Any = {"tokens": subject.tokens, "seed": subject.seed, "limits": subject.limits}
            sources.append(find_source(side, place=places.get(side.name), **how))
        except (NoDirection, TooFewPrompts) as error:
            without[side.name] = str(error)
    most = min(len(subject.tests["harmful"]), len(subject.tests["harmless"]))
    n = min(PROMPTS, most) if bundled else most
    found = measure_transfer(sources, sides, n=n, coefficient=subject.coefficient, seed=subject.seed)
    return replace(found, facts={**found.facts, "without a direction": without})


def _own(subject: Subject) -> Side:
    """Return the run's own model and prompts as a side."""
    splits = {"train": subject.train, "val": subject.val, "test": subject.tests}

    def prompts(name: str) -> PromptSet:
        listed: Any = {
            split: tuple(Prompt(one) if isinstance(one, str) else one for one in by[name])
            for split, by in splits.items()
        }
        return PromptSet(name, **listed)

    return Side("chat", subject.model, prompts("harmful"), prompts("harmless"), max_new_tokens=subject.max_new_tokens)


def _base(subject: Subject, own: Side) -> Side:
    note = "the model that the chat model was made from, in the latter's template"
    return replace(own, name="base", model=open_base(subject.base, subject.model), note=note)


def _bundled(subject: Subject, own: Side) -> list[Side]:
    """Return the run's own side and all that the package ships beside it."""
    from refusal.organism import checkpoint  # the bundled weights live beside the code

    own, where = replace(own, max_new_tokens=OPENING), own.model.network
    how: Any = {"dtype": str(where.dtype).removeprefix("torch."), "device": str(own.model.device)}
    quiet = load_model(checkpoint("think"), template_arguments={"enable_thinking": False}, **how)
    aloud = load_model(quiet.network, quiet.tokenizer)
    other: Any = {name: load_prompts(f"{name}-b") for name in ("harmful", "harmless")}
    told, thinks = "the thinking checkpoint, told not to think", "the thinking checkpoint; the answer is judged"
    return [
        own,
        replace(own, name="chat B", **other, note="the chat model, prompts in language B"),
        replace(own, name="think", model=quiet, note=told),
        replace(own, name="think B", model=quiet, **other, note=f"{told}, prompts in language B"),
        replace(own, name="think aloud", model=aloud, max_new_tokens=THOUGHT, note=thinks),
        _base(subject, own),
    ]
