"""A direction as a file to download, and the edited model as a checkpoint in a folder, by a process that can stop."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from refusal.direction import Direction
from refusal.weights.unfinished import MARKER

COMMAND = (sys.executable, "-m", "refusal")
PACE = 0.3  # seconds


def save_direction(direction: Direction, folder: Path) -> Path:
    """Write a direction into a folder under a name that says where it was read, and return the file."""
    path = folder / f"direction-layer{direction.layer}-position{direction.position}.safetensors"
    if not path.exists():
        direction.save(path)
    return path


def export_checkpoint(
    model: str, direction: Direction, out: str, *, architecture: Path | None, going: Callable[[], bool]
) -> Iterator[tuple[str, list[str]]]:
    """Do what `refusal export` does, in a process of its own, and yield (state, lines to show) until it has ended.

    The states are "working", "done", "failed" and "stopped"; a stopped export goes on when it is asked for again.
    """
    if not out.strip():
        yield "failed", ["There is no folder to write to. Name one."]
        return
    target, start = Path(out.strip()).expanduser().absolute(), time.monotonic()
    if why := _cannot_write(target):
        yield "failed", [why]
        return
    before = _size(target)
    with TemporaryDirectory() as scratch:
        saved, said, told = (Path(scratch) / name for name in ("direction.safetensors", "out", "err"))
        direction.save(saved)
        words = ["export", model, "--direction", str(saved), "--out", str(target)]
        words += ["--architecture", str(architecture)] if architecture else []
        with said.open("w") as stdout, told.open("w") as stderr:
            process = subprocess.Popen([*COMMAND, *words], stdout=stdout, stderr=stderr)
            try:
                while process.poll() is None and going():
                    size, seconds = (_size(target) - before) / 1e6, time.monotonic() - start
                    yield "working", [f"Writing {target}: {size:,.1f} MB, {seconds:.0f} s …"]
                    time.sleep(PACE)
            finally:
                stopped = process.poll() is None
                process.terminate()
                process.wait()
        if stopped:
            yield "stopped", [f"Stopped. {target} is not whole; the same export goes on from there."]
        elif process.returncode < 0:
            yield "stopped", [f"The export was ended from outside. {target} is not whole; the same export goes on."]
        elif process.returncode:
            yield "failed", _last(told.read_text(encoding="utf-8", errors="replace").splitlines())
        else:
            facts = (" ".join(line.split()) for line in said.read_text(encoding="utf-8").splitlines())
            yield "done", [f"Written in {time.monotonic() - start:.0f} s: {target}", *facts]


def _cannot_write(folder: Path) -> str:
    """Return why an export cannot be written into a folder, which is made; empty when it can, as far as one sees."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inside = {path.name for path in folder.iterdir()}
    except OSError as error:
        return f"{folder} cannot be written to: {error.strerror}. Give another folder."
    if not inside or MARKER in inside or inside == {f".{MARKER}.tmp"}:  # a stopped export goes on
        return ""
    return f"{folder} holds something already, such as {min(inside)}. Give a new or empty folder."


def _size(folder: Path) -> int:
    """Return how many bytes the files of a folder have."""
    sizes = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # such as a temporary file that has its name by now
            sizes.append(path.stat().st_size if path.is_file() else 0)
    return sum(sizes)


def _last(lines: Sequence[str]) -> list[str]:
    """Return what the command said at the end: our message, or the last line of a traceback."""
    return [lines[-1].removeprefix("refusal: ")] if lines else ["The export failed without a word."]
