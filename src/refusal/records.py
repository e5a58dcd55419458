"""What a run leaves on disk: typed, versioned, and written whole or not at all. No torch.

Every file goes to a temporary name beside its place, is flushed, and is renamed, so a kill or a full disk leaves
the old file or none. `Run` keeps, in `run.json`, the hash of what each step read and of what it wrote.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refusal.errors import BadInput, BadRunFolder, Unavailable

RUN_FORMAT = 2  # 1 held verdicts that were true or false
Json = Any  # what json.dumps takes
AS_IT_IS = {str, int, bool, type(None)}  # most of what files hold, and the same there


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises Unavailable for a full disk and BadInput for a place without access."""
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        _forget(temporary)
        raise disk_error(path, error) from error
    except BaseException:
        _forget(temporary)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Json) -> None:
    """Write strict JSON (NaN becomes null), indented, whole or not at all."""
    write_text(path, json.dumps(strict(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Json]]) -> None:
    """Write JSON lines, a row a line, whole or not at all."""
    write_text(path, "".join(_line(row) for row in rows))


def read_json(path: Path) -> Json:
    """Read one JSON file of a run. Raises BadRunFolder when it is missing or broken."""
    return _parse(path, json.loads)


def read_rows(path: Path) -> list[dict[str, Json]]:
    """Read JSON lines. Raises BadRunFolder when the file is missing or a line is broken."""
    return _parse(path, _lines)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_hash(value: Json) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(strict(value), sort_keys=True).encode()).hexdigest()


class Journal:
    """Rows of a long step, appended as they come, so that a killed step goes on where it stopped.

    Every row carries its `index`. A last line cut off by a kill is dropped. `finish` writes the rows in order of
    their index to the final file and forgets the journal. `inputs` is the hash of what the step depends on: a
    journal begun with other inputs is thrown away.
    """

    def __init__(self, final: Path, inputs: str):
        self.final, self.inputs = final, inputs
        self.path = final.with_name(f".{final.name}.journal")
        self.rows = self._recover()

    def append(self, rows: Sequence[Mapping[str, Json]]) -> None:
        """Add finished rows, flushed to disk before returning."""
        try:
            new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(([_line({"inputs": self.inputs})] if new else []) + [_line(row) for row in rows])
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(self.path, error) from error
        self.rows |= {row["index"]: strict(row) for row in rows}  # as a resumed run would read them

    def finish(self, rows: Iterable[Mapping[str, Json]] | None = None) -> None:
        """Write the final file and remove the journal: its rows in order, or `rows` made from all of them."""
        if rows is None:
            rows = [{k: v for k, v in self.rows[i].items() if k != "index"} for i in sorted(self.rows)]
        write_rows(self.final, rows)
        _forget(self.path)

    def _recover(self) -> dict[int, dict[str, Json]]:
        if not self.path.exists():
            return {}
        header, *rows = _parse(self.path, lambda data: _lines(data[: data.rfind(b"\n") + 1])) or [{}]
        if header != {"inputs": self.inputs}:
            _forget(self.path)
            return {}
        write_rows(self.path, [header, *rows])  # without what a kill cut off
        return {row["index"]: row for row in rows}


@dataclass(frozen=True)
class Run:
    """One run folder. `run.json` in it is the record of what was asked, of every step, and of every choice."""

    folder: Path

    @property
    def _record_path(self) -> Path:
        return self.folder / "run.json"

    @classmethod
    def open(cls, folder: Path, about: Mapping[str, Json]) -> "Run":
        """Open or create a run folder. `about` is what identifies the run; a folder of another run is refused.

        Raises BadRunFolder for a corrupt or foreign folder, and the errors of `write_bytes`.
        """
        run, about = cls(folder), strict(about)
        if run._record_path.exists():
            found = run.record["about"]
            if found != about:
                raise BadRunFolder(
                    f"{folder} holds another run: {_differences(found, about)}. "
                    "Give another --out, or remove the folder."
                )
            return run
        killed = _temporary(run._record_path)  # all that a run killed at once leaves behind
        if folder.exists() and (not folder.is_dir() or any(path != killed for path in folder.iterdir())):
            raise BadRunFolder(f"{folder} exists and is not a run folder (no run.json). Give an empty or new --out.")
        write_json(
            run._record_path,
            {"format": RUN_FORMAT, "about": about, "status": "running", "steps": {}},
        )
        return run

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Open a finished or stopped run to read it. Raises BadRunFolder when it is not one."""
        run = cls(folder)
        run._read_record()
        return run

    @property
    def record(self) -> dict[str, Json]:
        """The parsed `run.json`. Raises BadRunFolder when it is missing, broken or of another format."""
        return self._read_record()

    def _read_record(self) -> dict[str, Json]:
        path, remedy = self._record_path, "Give another folder, or remove this one and run again."
        record = _parse(path, json.loads, remedy)
        found = record.get("format") if isinstance(record, dict) else None
        if found != RUN_FORMAT:
            raise BadRunFolder(
                f"{path} is of format {found}, and this version reads format {RUN_FORMAT}. "
                "Use the version of the package that wrote it, or run again into a new folder."
            )
        if not isinstance(record.get("steps"), dict) or not isinstance(record.get("about"), dict):
            raise BadRunFolder(f"{path} does not say which run it is and what steps it has done. {remedy}")
        return record

    def note(self, **facts: Json) -> None:
        """Add facts to `run.json` (environment, choices and their reasons, counts)."""
        write_json(self._record_path, self.record | facts)

    def done(self, step: str, inputs: str) -> bool:
        """Tell whether a step has run on these inputs. Raises BadRunFolder when a file it wrote was changed since."""
        entry = self.record["steps"].get(step)
        if entry is None or entry["inputs"] != inputs:
            return False
        for name, digest in entry["outputs"].items():
            path = self.folder / name
            if not path.exists():
                return False
            if file_hash(path) != digest:
                raise BadRunFolder(
                    f"{path} is not what step '{step}' wrote (its hash differs). Remove that file to compute it again."
                )
        return True

    @contextmanager
    def step(self, name: str, inputs: str, outputs: Sequence[str]) -> Iterator[None]:
        """Run a step's body, then record its inputs, the hashes of its outputs, and its seconds."""
        start = time.perf_counter()
        yield
        record = self.record
        record["steps"][name] = {
            "inputs": inputs,
            "outputs": {output: file_hash(self.folder / output) for output in outputs},
            "seconds": round(time.perf_counter() - start, 3),
        }
        write_json(self._record_path, record)


def _parse(path: Path, parse: Callable[[bytes], Json], remedy: str = "Remove that file to compute it again.") -> Json:
    try:
        return parse(path.read_bytes())
    except FileNotFoundError as error:
        raise BadRunFolder(f"{path} is missing. Give the folder of a run, or run again to make it.") from error
    except (OSError, ValueError) as error:
        raise BadRunFolder(f"{path} cannot be read: {error}. {remedy}") from error


def _lines(data: bytes) -> list[dict[str, Json]]:
    # Not `splitlines`: model text may hold other line separators, which JSON leaves as they are.
    rows = [json.loads(line) for line in data.split(b"\n") if line]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not a JSON object")
    return rows


def _line(row: Mapping[str, Json]) -> str:
    return json.dumps(strict(row), ensure_ascii=False, allow_nan=False) + "\n"


def strict(value: Json) -> Json:
    """Return a value as a file gives it back: NaN and infinities become null, tuples lists, paths text."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, Mapping):
        return {str(k): v if type(v) in AS_IT_IS else strict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [v if type(v) in AS_IT_IS else strict(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _differences(there: Mapping[str, Json], here: Mapping[str, Json]) -> str:
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return ", ".join(f"{name} is {there.get(name)!r} there and {here.get(name)!r} here" for name in names)


def _temporary(path: Path) -> Path:
    # Always the same name, so that what a kill leaves behind is written over by the next try.
    return path.with_name(f".{path.name}.tmp")


def _forget(path: Path) -> None:
    with suppress(OSError):  # gone already, or in a place where it could not be made
        path.unlink()


def disk_error(path: Path, error: OSError) -> Exception:
    """Return the error to raise for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"The disk is full: {path} was not written. Free some space and run again; it will go on.")
    return BadInput(f"Cannot write {path}: {error.strerror or error}. Give an output folder that you may write to.")
