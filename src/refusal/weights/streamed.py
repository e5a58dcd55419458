"""A file of a checkpoint, copied with its writers edited on the way: at most one matrix is in memory at a time."""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from refusal.weights.removal import Removal
from refusal.weights.safetensors_files import FLOATS, Stored, read_header
from refusal.weights.written import Written

IN_MEMORY = 1 << 22  # values of a table read together
LARGE = 1 << 28  # bytes of a matrix above which only one is in memory, however many files are written at once
CHUNK = 1 << 26  # bytes copied together
NOT_BY_KERNEL = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)  # between file systems
_one_large = Lock()


@dataclass(frozen=True)
class Edit:
    """What happens to one stored tensor: its written vectors lie along `axis`."""

    stored: Stored
    axis: int
    how: Removal


def write_edited(
    source: Path,
    target: Path,
    edits: Sequence[Edit],
    *,
    copy: tuple[Stored, str] | None = None,
    checksum: bool = True,
) -> tuple[list[Written], str]:
    """Write a file with some tensors edited; everything else keeps its bytes and its order. Return also its SHA-256.

    `copy` puts the original of one tensor under a second name at the end: an embedding and the name of its unembedding.
    """
    with open(source, "rb", buffering=0) as old, _Output(target, checksum) as new:
        at, end = 0, os.path.getsize(source)
        if copy:
            at = 8 + int.from_bytes(os.pread(old.fileno(), 8, 0), "little")
            new.write(memoryview(_grown_header(source, copy)))
        found: dict[str, Written] = {}
        for edit in sorted(edits, key=lambda edit: edit.stored.start):
            new.copy(old, at, edit.stored.start)
            found[edit.stored.name] = _write_tensor(old, new, edit)
            at = edit.stored.end
        new.copy(old, at, end)
        if copy:
            new.copy(old, copy[0].start, copy[0].end)
        return [found[edit.stored.name] for edit in edits], new.digest()


def measure(source: Path, edit: Edit, edited: Path | None = None) -> Written:
    """Return what a stored tensor writes along the direction, and what it would edited, or does in another file."""
    written = Written(edit.how)
    there = edit.stored if edited is None else {t.name: t for t in read_header(edited)}[edit.stored.name]
    with open(source, "rb", buffering=0) as old, open(edited or source, "rb", buffering=0) as new:
        for start, piece in _pieces(old, edit.stored, edit.axis, _Room()):
            other = None if edited is None else _read(new, there, start, tuple(piece.shape), _Room())
            written.measure(piece, edit.axis, other)
    return written


def read_tensor(folder: Path, stored: Stored, rows: int | None = None) -> Tensor:
    """Read one tensor, whole or its first rows, without mapping its file into memory."""
    shape = stored.shape if rows is None else (rows, *stored.shape[1:])
    with open(folder / stored.file, "rb", buffering=0) as file:
        return _read(file, stored, 0, shape, _Room())


def header_growth(source: Path, copy: tuple[Stored, str]) -> int:
    """Return how many bytes a file gains by a copy of one tensor."""
    with open(source, "rb") as file:
        old = 8 + int.from_bytes(file.read(8), "little")
    return len(_grown_header(source, copy)) - old + copy[0].end - copy[0].start


def _write_tensor(old: FileIO, new: "_Output", edit: Edit) -> Written:
    written = Written(edit.how)
    with _one_large if _piece_size(edit.stored, edit.axis) > LARGE else nullcontext():
        for _, piece in _pieces(old, edit.stored, edit.axis, new.room):
            written.edit_in_place(piece, edit.axis)
            new.write(memoryview(piece.view(torch.uint8).flatten().numpy()))  # type: ignore[arg-type]
    return written


def _piece_size(stored: Stored, axis: int) -> int:
    return 0 if axis == -1 else prod(stored.shape[-2:]) * FLOATS[stored.dtype].itemsize


def _pieces(file: FileIO, stored: Stored, axis: int, room: "_Room") -> Iterator[tuple[int, Tensor]]:
    """Read a tensor in pieces, rows of a table `n d` or matrices `d i`, each with the value at which it begins."""
    rest = prod(stored.shape)
    if axis == -1:
        width = stored.shape[-1]
        size = max(1, IN_MEMORY // width) * width
        shapes = [(min(size, rest - at) // width, width) for at in range(0, rest, size)]
    else:
        shapes = [stored.shape[-2:]] * (rest // max(1, prod(stored.shape[-2:])))
    start = 0
    for shape in shapes:
        yield start, _read(file, stored, start, shape, room)
        start += prod(shape)


def _read(file: FileIO, stored: Stored, start: int, shape: tuple[int, ...], room: "_Room") -> Tensor:
    dtype = FLOATS[stored.dtype]
    view = room.take(prod(shape) * dtype.itemsize)
    done = 0
    while done < len(view):
        got = os.preadv(file.fileno(), [view[done:]], stored.start + start * dtype.itemsize + done)
        if not got:
            raise EOFError(f"{stored.file} ended inside '{stored.name}': it was changed while it was read")
        done += got
    return torch.frombuffer(view, dtype=dtype).reshape(shape) if view else torch.empty(shape, dtype=dtype)


class _Room:
    """Memory that pieces are read into, one after the other: new memory for each would cost more than reading it."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def take(self, size: int) -> memoryview:
        """Return so much of it, with anything inside. What is large is not kept."""
        if size > LARGE:
            return memoryview(bytearray(size))
        if size > len(self._bytes):
            self._bytes = bytearray(size)
        return memoryview(self._bytes)[:size]


def _grown_header(source: Path, copy: tuple[Stored, str]) -> bytes:
    stored, name = copy
    with open(source, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
    end = os.path.getsize(source) - 8 - size
    header[name] = {
        "dtype": stored.dtype,
        "shape": list(stored.shape),
        "data_offsets": [end, end + stored.end - stored.start],
    }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text


class _Output:
    """A file being written from its beginning to its end, and hashed behind the writer's back while it grows."""

    def __init__(self, path: Path, checksum: bool):
        self._checksum = checksum
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115  (closed by __exit__)
        self._hash, self._pool, self._last = sha256(), ThreadPoolExecutor(1), None
        self._at = 0
        self.room = _Room()

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._file.close()

    def write(self, data: memoryview) -> None:
        """Append some bytes."""
        size = len(data)
        while data:
            data = data[self._file.write(data) :]
        self._grown(size)

    def copy(self, old: FileIO, start: int, stop: int) -> None:
        """Append some bytes of another file, by the kernel where it can."""
        while start < stop:
            size = min(CHUNK, stop - start)
            done = self._copy_some(old, start, size)
            if not done:
                raise EOFError(f"{old.name} became shorter while it was copied")
            start += done

    def digest(self) -> str:
        """Return the SHA-256 of what was written, once all of it has been read back; "" if none was wanted."""
        if not self._checksum:
            return ""
        if self._last is not None:
            self._last.result()
        return self._hash.hexdigest()

    def _copy_some(self, old: FileIO, start: int, size: int) -> int:
        if hasattr(os, "copy_file_range"):
            try:
                done = os.copy_file_range(old.fileno(), self._file.fileno(), size, start)
                self._grown(done)
                return done
            except OSError as error:
                if error.errno not in NOT_BY_KERNEL:
                    raise
        data = os.pread(old.fileno(), size, start)
        self.write(memoryview(data))
        return len(data)

    def _grown(self, size: int) -> None:
        if self._checksum:
            self._last = self._pool.submit(self._take, self._at, self._at + size, self._last)
        self._at += size

    def _take(self, start: int, stop: int, before: "Future[None] | None") -> None:
        if before is not None:
            before.result()  # an error there is an error here
        while start < stop:
            data = os.pread(self._file.fileno(), min(1 << 20, stop - start), start)
            if not data:
                raise EOFError(f"{self._file.name} became shorter while it was written")
            self._hash.update(data)
            start += len(data)
