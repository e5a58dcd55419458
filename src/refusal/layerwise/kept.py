"""Activations between two blocks: in memory up to an allowance, the rest in files of a temporary folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from refusal.records import disk_error

SHARE_OF_FREE = 0.5  # of main memory, where no allowance is given


@dataclass(eq=False)
class Store:
    """Room for activations: how many bytes may stay in memory, and where the others go."""

    allowance: int
    folder: Path
    in_memory: int = 0
    on_disk: int = 0
    _files: int = field(default=0, repr=False)

    def place(self) -> "Place":
        """Return a new place for the activations of one batch."""
        self._files += 1
        return Place(self, self.folder / f"{self._files}.bin")


@dataclass(eq=False)
class Place:
    """The activations of one batch. Whether they stay in memory is decided when they first come."""

    store: Store
    path: Path
    kept: Tensor | None = None
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32

    def write(self, x: Float[Tensor, "b s d"]) -> None:
        """Put new activations in place of the old. Raises Unavailable for a full disk."""
        new = not self.shape
        self.shape, self.dtype = tuple(x.shape), x.dtype
        if new and self.store.in_memory + x.nbytes <= self.store.allowance:
            self.store.in_memory += x.nbytes
            self.kept = x.cpu()
        elif self.kept is not None:
            self.kept = x.cpu()
        else:
            self.store.on_disk += x.nbytes if new else 0
            self._save(x.cpu().contiguous())

    def read(self) -> Float[Tensor, "b s d"]:
        """Return the activations, on the CPU."""
        if self.kept is not None:
            return self.kept
        return torch.from_numpy(np.fromfile(self.path, np.uint8)).view(self.dtype).view(self.shape)

    def _save(self, x: Float[Tensor, "b s d"]) -> None:
        try:
            with open(self.path, "wb") as file:
                file.write(memoryview(x.view(torch.uint8).numpy()))  # type: ignore[arg-type]
        except OSError as error:
            raise disk_error(self.path, error) from error


@contextmanager
def store(*, memory: int | None = None, folder: Path | None = None) -> Iterator[Store]:
    """Open a store whose files go to a temporary folder, inside `folder` if given, and are removed at the end.

    `memory` is the allowance in bytes, by default half of what is free.
    """
    allowance = int(psutil.virtual_memory().available * SHARE_OF_FREE) if memory is None else memory
    try:
        place = TemporaryDirectory(prefix="activations-", dir=folder)
    except OSError as error:
        raise disk_error(Path(folder or "."), error) from error
    with place as name:
        yield Store(allowance, Path(name))
