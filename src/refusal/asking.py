"""What `refusal ask` does: one prompt answered plain, with the direction ablated, and with it added."""

from collections.abc import Iterator
from functools import partial

from refusal.direction import Direction
from refusal.generation import stream
from refusal.model import ChatModel
from refusal.ways import Way, in_turn


def answers(
    model: ChatModel,
    prompt: str,
    direction: Direction,
    *,
    coefficient: float,
    layer: int | None,
    max_new_tokens: int | None,
) -> Iterator[dict[str, str]]:
    """Yield the three answers so far, after a token of each in turn; the last are whole.

    `layer` is where the direction is added, if not at its own.
    """
    ways = {
        "plain": Way("none", direction),
        "ablated": Way("ablation", direction),
        "added": Way("addition", direction, coefficient, layer),
    }
    streams = [
        stream(model, prompt, max_new_tokens=max_new_tokens, around=partial(way.around, model)) for way in ways.values()
    ]
    for steps in in_turn(streams):
        yield {name: step[1].response if step else "" for name, step in zip(ways, steps, strict=True)}
