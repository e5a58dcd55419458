"""Rates and differences of rates, with intervals."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from refusal import display

Z95 = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True)
class Rate:
    """`k` of `n`, with the 95 % Wilson score interval."""

    k: int
    n: int
    undetermined: int = 0  # verdicts a judge could not give; not in n

    def __post_init__(self) -> None:
        assert 0 <= self.k <= self.n, (self.k, self.n)

    def __repr__(self) -> str:
        return f"Rate({self})"

    def _repr_html_(self) -> str:
        return display.card(str(self), {}, display.bar(self.rate, *self.interval))

    @property
    def rate(self) -> float:
        """k / n, or NaN when nothing was counted."""
        return self.k / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson interval: the rates p with |k/n − p| ≤ z·sqrt(p(1−p)/n); (0, 1) when nothing was counted."""
        if not self.n:
            return 0.0, 1.0
        centre = (self.rate + Z95**2 / (2 * self.n)) / (1 + Z95**2 / self.n)
        half = Z95 / (1 + Z95**2 / self.n)
        half *= sqrt(self.rate * (1 - self.rate) / self.n + Z95**2 / (4 * self.n**2))
        # At k = 0 and k = n the bound is exact, and rounding must not push it past the rate.
        low = 0.0 if self.k == 0 else centre - half
        high = 1.0 if self.k == self.n else centre + half
        return low, high

    def record(self, name: str) -> dict[str, float | int]:
        """Return the flat form that results carry: `{name: k, "n", "rate", "low", "high"}`."""
        low, high = self.interval
        row = {name: self.k, "n": self.n, "rate": self.rate, "low": low, "high": high}
        return row | ({"undetermined": self.undetermined} if self.undetermined else {})

    def __str__(self) -> str:
        low, high = self.interval
        rest = f", {self.undetermined} undetermined" if self.undetermined else ""
        rate = f"{self.rate:.1%}" if self.n else "–"
        return f"{self.k}/{self.n} = {rate} [{low:.1%}, {high:.1%}]{rest}"


def count(verdicts: Iterable[bool | None]) -> Rate:
    """Count verdicts into a rate; `None` is undetermined and stays out of n."""
    listed = list(verdicts)
    known = [v for v in listed if v is not None]
    return Rate(sum(known), len(known), len(listed) - len(known))


@dataclass(frozen=True)
class RateDifference:
    """The first rate minus the second, with the 95 % interval of Newcombe's square-and-add method.

    `phi` is the correlation of paired verdicts, 0 for two separate samples. The distances from each rate to the ends
    of its Wilson interval are added like the sides of a triangle (Newcombe 1998, Statistics in Medicine 17: method 10
    of p. 873 for separate samples, of p. 2635 for pairs).
    """

    first: Rate
    second: Rate
    phi: float = 0.0

    @property
    def difference(self) -> float:
        """The first rate minus the second, from −1 to 1; NaN when one of them counted nothing."""
        return self.first.rate - self.second.rate

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the interval; (−1, 1) when one of the rates counted nothing."""
        if not (self.first.n and self.second.n):
            return -1.0, 1.0
        below, above = self._reach(self.first, self.second), self._reach(self.second, self.first)
        return max(-1.0, self.difference - below), min(1.0, self.difference + above)

    def _reach(self, down: Rate, up: Rate) -> float:
        """Return how far the difference can go to one side: `down` to its lower end and `up` to its upper end."""
        a, b = down.rate - down.interval[0], up.interval[1] - up.rate
        return sqrt(max(0.0, a * (a - 2 * self.phi * b) + b * b))

    def record(self) -> dict[str, float]:
        """Return the flat form that results carry: `{"difference", "low", "high"}`."""
        low, high = self.interval
        return {"difference": self.difference, "low": low, "high": high}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def rate_difference(first: Rate, second: Rate) -> RateDifference:
    """Subtract the rates of two separate samples; verdicts on the same prompts go to `mcnemar`."""
    return RateDifference(first, second)
