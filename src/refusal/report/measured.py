"""What an analysis measured, read from its record: means and standard deviations under the labels of their axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refusal.formats import Number
from refusal.labels import Row


@dataclass(frozen=True)
class Measured:
    """Means and standard deviations over prompts; the first axis is "condition", and `n` counts its prompts."""

    axes: Mapping[str, Sequence[str]]
    mean: Sequence[Any]
    sd: Sequence[Any]
    n: Mapping[str, int]
    facts: Row

    @classmethod
    def read(cls, record: Row) -> "Measured":
        """Read the record of a measurement. Raises LookupError, TypeError or ValueError for another record."""
        axes = record["axes"]
        n = dict(zip(axes["condition"], record["n"], strict=True))
        return cls(axes, record["mean"], record["sd"], n, record["facts"])

    def at(self, *labels: str) -> tuple[Any, Any]:
        """Return means and standard deviations under labels of the first axes."""
        mean, sd = self.mean, self.sd
        for label, known in zip(labels, self.axes.values(), strict=False):
            mean, sd = mean[known.index(label)], sd[known.index(label)]
        return mean, sd

    @property
    def edges(self) -> list[Number]:
        """Every mean plus and minus its standard deviation, which a scale for all of them spans."""
        pairs = zip(_flat(self.mean), _flat(self.sd), strict=True)
        return [mean + side * sd for mean, sd in pairs for side in (-1, 1)]

    @property
    def layer(self) -> int:
        """Which entry of the axis of layers is that of the direction."""
        return self.axes["layer"].index(str(self.facts["layer"]))

    @property
    def place(self) -> tuple[int, int]:
        """Which entries of the axes of positions and layers are those of the direction."""
        return self.axes["position"].index(str(self.facts["position"])), self.layer


def _flat(values: Any) -> list[Number]:
    return [one for inner in values for one in _flat(inner)] if isinstance(values, list) else [values]
