"""Ways to answer one prompt: as the model is, with a direction ablated, with it added; and several of them in turn."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

from refusal.direction import Direction
from refusal.interventions import ablate, add
from refusal.model import ChatModel

Step = TypeVar("Step")


@dataclass(frozen=True, eq=False)
class Way:
    """One way to answer: what is done with which direction; `layer` is where it is added, if not at its own."""

    kind: Literal["none", "ablation", "addition"]
    direction: Direction
    coefficient: float = 1.0
    layer: int | None = None

    def around(self, model: ChatModel) -> AbstractContextManager[None]:
        """Return the intervention as a with-block."""
        if self.kind == "ablation":
            return ablate(model, self.direction)
        if self.kind == "addition":
            return add(model, self.direction, coefficient=self.coefficient, layer=self.layer)
        return nullcontext()


def in_turn(
    streams: Sequence[Iterator[Step]], *, going: Callable[[], bool] = lambda: True
) -> Iterator[list[Step | None]]:
    """Take a step of each stream in turn, and yield the last step of all: before the first, None, and after each round.

    Ends when every stream has, or when `going` says no.
    """
    last: list[Step | None] = [None] * len(streams)
    running = dict(enumerate(streams))
    while running and going():
        yield list(last)
        for i, stream in list(running.items()):
            if not going():
                break
            try:
                last[i] = next(stream)
            except StopIteration:
                del running[i]
    yield last
