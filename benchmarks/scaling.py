"""How time grows with layers, prompts, candidates and vocabulary: the full sweep and the class means, with exponents.

One thing is doubled at a time around a small random model of Llama's shape; time is fitted as a power of it by least
squares of the logarithms. The sweep's work grows with its candidates, so that of a model of L layers with all its L·P
candidates would grow with L²: here their number stays, spread over all depths.

    python benchmarks/scaling.py
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sizes import POSITIONS, SHAPES, keep, machine, parser, random_model, table, two_classes
from sizes import in_turn as timed

from refusal.extraction import mean_difference
from refusal.refusal_tokens import RefusalTokens
from refusal.rule import NOT_SCORED, Score
from refusal.sweep import prepare, sweep

NAN = float("nan")
STEPS = (0.25, 0.5, 1, 2)  # of the value in the middle
WORDS = RefusalTokens((0,), ("",), "any")


def main() -> None:
    options = arguments()
    print(machine(options.device), "\n")
    middle = {
        "layers": options.layers,
        "prompts": options.prompts,
        "candidates": options.candidates,
        "vocabulary": options.vocabulary,
    }
    rows = []
    for axis in middle:
        values = [max(1, round(middle[axis] * step)) for step in STEPS]
        works = {value: works_at(options, {**middle, axis: value}) for value in values}
        flat = {f"{value} {name}": work for value, both in works.items() for name, work in both.items()}
        for work in flat.values():
            work()
        times = timed(flat, options.rounds)
        for name in ("sweep", "means"):
            found = [times[f"{value} {name}"] for value in values]
            exponent, off = power(values, found)
            shown = ", ".join(f"{value}: {seconds:.3g}" for value, seconds in zip(values, found, strict=True))
            row = {"what": name, "against": axis, "seconds": shown, "exponent": exponent, "worst off": f"{off:.0%}"}
            rows.append(row)
            keep(options.json, {"benchmark": "scaling", "machine": machine(options.device), "middle": middle, **row})
    print(table(rows))


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--shape", default="30M", choices=list(SHAPES), help="its layers are as many as --layers says")
    made.add_argument("--layers", type=int, default=8)
    made.add_argument("--prompts", type=int, default=64)
    made.add_argument("--candidates", type=int, default=10)
    made.add_argument("--vocabulary", type=int, default=32000)
    return made.parse_args()


def works_at(options: argparse.Namespace, at: Mapping[str, int]) -> dict[str, Callable[[], object]]:
    """Return the full sweep of some candidates and the class means at one point, ready to be timed."""
    model = random_model(replace(SHAPES[options.shape], layers=at["layers"]), at["vocabulary"], device=options.device)
    texts = two_classes(at["prompts"], seed=20)
    candidates = mean_difference(model, *two_classes(32, seed=10))
    places = [(p, layer) for p in candidates.positions for layer in range(at["layers"])]
    chosen = set(spread(at["candidates"], at["layers"]))
    skip = {i: Score(*place, NAN, NAN, NAN, NOT_SCORED) for i, place in enumerate(places) if place not in chosen}
    validation = prepare(model, *texts, tokens=WORDS)
    return {
        "sweep": lambda: sweep(model, candidates, validation=validation, skip=skip),
        "means": lambda: mean_difference(model, *texts),
    }


def spread(count: int, layers: int) -> list[tuple[int, int]]:
    """Return so many places (position, layer), layer 0 left out, all depths alike; at most as many as there are."""
    places = [(-1 - i % POSITIONS, layer) for layer in range(1, layers) for i in range(POSITIONS)]
    count = min(count, len(places))
    return [places[int((i + 0.5) * len(places) / count)] for i in range(count)]


def power(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Fit y = a·xᵏ; return k, and by what share of the fit the worst point is off."""
    u, v = [math.log(value) for value in x], [math.log(value) for value in y]
    mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
    k = sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True)) / sum((a - mean_u) ** 2 for a in u)
    off = max(abs(math.exp(b - mean_v - k * (a - mean_u)) - 1) for a, b in zip(u, v, strict=True))
    return k, off


if __name__ == "__main__":
    main()
