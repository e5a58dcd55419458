"""One prompt answered in several ways at once, token by token, with every token's component on a direction."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from refusal import equations, interventions
from refusal.direction import Candidates, Direction
from refusal.errors import BadInput
from refusal.generation import stream
from refusal.model import ChatModel
from refusal.ways import Way, in_turn

State = Literal["waiting", "writing", "ended", "cut off", "stopped"]
DONE = ("ended", "cut off")
REMEMBERED = 64  # finished answers


def ways(first: Direction, second: Direction | None, coefficient: float) -> tuple[Way, ...]:
    """Return what is shown side by side: plain, ablated, added, and the last two of a second direction if given."""
    own = (Way("none", first), Way("ablation", first), Way("addition", first, coefficient))
    if second is None:
        return own
    return (*own, Way("ablation", second), Way("addition", second, coefficient))


@dataclass(frozen=True)
class Answer:
    """What is known of one answer so far; `components` are of all tokens that the model has read, layer by layer."""

    way: Way
    prompt: str
    state: State = "waiting"
    response: str = ""
    prompt_tokens: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    components: tuple[tuple[float, ...], ...] = ()


class Live:
    """A loaded model that several sessions use by turns: the lock is held for one token at a time."""

    def __init__(self, model: ChatModel, candidates: Candidates, *, max_new_tokens: int, graded: bool = False):
        self.model, self.candidates, self.max_new_tokens = model, candidates, max_new_tokens
        self.graded = graded  # the prompts are of the bundled language, whose grammar knows the right answer
        self._lock = Lock()
        self._finished: OrderedDict[tuple, Answer] = OrderedDict()

    def answers(
        self,
        prompt: str,
        asked: Sequence[Way],
        *,
        beside: Sequence[tuple[str, Way]] = (),
        going: Callable[[], bool] = lambda: True,
    ) -> Iterator[list[Answer]]:
        """Answer a prompt in several ways, a token of each in turn, and yield all of them after every round.

        `beside` holds further prompts, each with a way; their answers come last. Ends early, with what there is, when
        `going` says no. Raises BadInput for a prompt that is empty or too long, and the errors of `ChatModel.encode`.
        """
        everything = [*((prompt, way) for way in asked), *beside]
        for text in dict(everything):
            self._check(text)
        shown = waiting = [Answer(way, text) for text, way in everything]
        for steps in in_turn([self._answer(text, way) for text, way in everything], going=going):
            shown = [step or first for step, first in zip(steps, waiting, strict=True)]
            yield shown
        if any(answer.state not in DONE for answer in shown):
            yield [answer if answer.state in DONE else replace(answer, state="stopped") for answer in shown]

    def _check(self, prompt: str) -> None:
        if not prompt.strip():
            raise BadInput("There is no prompt. Type one, or pick one of the list.")
        most = getattr(self.model.network.config.get_text_config(), "max_position_embeddings", None)
        length = len(self.model.encode(prompt))
        if isinstance(most, int) and length >= most:
            raise BadInput(
                f"This prompt has {length} tokens, and {self.model.name} reads fewer than {most}. Shorten it."
            )

    def _answer(self, prompt: str, way: Way) -> Iterator[Answer]:
        key = (prompt, way.kind, way.direction.position, way.direction.layer)
        key += (way.coefficient,) if way.kind == "addition" else ()
        if key in self._finished:
            yield replace(self._finished[key], way=way)
            return
        asked = self.model.encode(prompt)
        read, texts = _Components(self, way, len(asked)), tuple(self.model.text(token) for token in asked)
        for tokens, said in stream(self.model, prompt, max_new_tokens=self.max_new_tokens, around=read.around):
            state: State = "ended" if said.finished else "cut off" if said.tokens == self.max_new_tokens else "writing"
            own = tuple(self.model.text(token) for token in tokens)
            answer = Answer(way, prompt, state, said.response, texts, own, tuple(map(tuple, read.columns)))
            if state in DONE:
                self._remember(key, answer)
            yield answer

    def _remember(self, key: tuple, answer: Answer) -> None:
        with self._lock:
            self._finished[key] = answer
            while len(self._finished) > REMEMBERED:
                self._finished.popitem(last=False)


class _Components:
    """Reads every token's component at the input of each block, in the very passes that the answer is made of."""

    def __init__(self, live: Live, way: Way, prompt_tokens: int):
        self.live, self.way = live, way
        self.columns: list[list[float]] = []  # a token: its component at every layer
        self.length = prompt_tokens  # of all that the next pass will have read

    @contextmanager
    def around(self) -> Iterator[None]:
        """Take the model for one token, under the intervention."""
        model = self.live.model
        with self.live._lock, self.way.around(model), interventions.capture(model) as kept:
            yield
            new = components(kept["resid_pre"], interventions.for_model(self.way.direction.unit, model)).tolist()
        # A model without a cache that goes on reads everything again.
        self.columns = [*self.columns[: self.length - len(new)], *new]
        self.length += 1


def components(streams: Sequence[Float[Tensor, "1 s d"]], unit: Float[Tensor, " d"]) -> Float[Tensor, "s l"]:
    """Return the component r̂ᵀx of one row's tokens at every layer, on the CPU."""
    return torch.stack([equations.project(stream[0], unit).cpu() for stream in streams], dim=1)


def scales(candidates: Candidates, position: int) -> tuple[float, ...]:
    """Return how far apart the class means lie at each layer and one position: the size that components are held to."""
    return tuple(candidates.differences[position].norm(dim=-1).tolist())


def cosine(first: Direction, second: Direction) -> float:
    """Return the cosine of two directions."""
    return float(equations.project(first.unit, second.unit))
