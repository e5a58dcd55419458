"""A direction as a file to download, and the edited model as a checkpoint in a folder, by a process that can stop."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from refusal.direction import Direction

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
    with TemporaryDirectory() as scratch:
        saved, said, told = (Path(scratch) / name for name in ("direction.safetensors", "out", "err"))
        direction.save(saved)
        words = ["export", model, "--direction", str(saved), "--out", str(target)]
        words += ["--architecture", str(architecture)] if architecture else []
        with said.open("w") as stdout, told.open("w") as stderr:
            process = subprocess.Popen([*COMMAND, *words], stdout=stdout, stderr=stderr)
            try:
                while process.poll() is None and going():
                    yield "working", [f"Writing {target}: {_size(target)}, {time.monotonic() - start:.0f} s …"]
                    time.sleep(PACE)
            finally:
                stopped = process.poll() is None
                process.terminate()
                process.wait()
        if stopped:
            yield "stopped", [f"Stopped. {target} is not whole; the same export goes on from there."]
        elif process.returncode:
            yield "failed", _last(told.read_text(encoding="utf-8", errors="replace").splitlines())
        else:
            facts = (" ".join(line.split()) for line in said.read_text(encoding="utf-8").splitlines())
            yield "done", [f"Written in {time.monotonic() - start:.0f} s: {target}", *facts]


def _size(folder: Path) -> str:
    found = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return f"{sum(path.stat().st_size for path in found if path.exists()) / 1e6:,.1f} MB"


def _last(lines: Sequence[str]) -> list[str]:
    """Return what the command said at the end: our message, or the last line of a traceback."""
    return [lines[-1].removeprefix("refusal: ")] if lines else ["The export failed without a word."]
