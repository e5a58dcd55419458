"""A folder that is being written: it says so until it is done, and a second try goes on where the first stopped."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refusal.errors import BadInput
from refusal.records import write_json

MARKER = "UNFINISHED.json"
EXPLANATION = "This folder is an export that was stopped. Run the same export again and it goes on, or remove it."


class Unfinished:
    """The marker in such a folder: what is being made, and which files are whole already, with what is known of them.

    Files get their names when they are whole, so a kill leaves a folder without a marker, or one to go on with.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder, self._path = folder, folder / MARKER
        self.settings = json.loads(json.dumps(settings))  # as a second try will read them
        self.done: dict[str, Any] = {}

    def check(self) -> None:
        """Look at what is there. Raises BadInput for a folder that holds something else."""
        if self.folder.exists() and not self.folder.is_dir():
            raise BadInput(f"{self.folder} is a file. Give a new or empty folder.")
        inside = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        if inside <= {f".{MARKER}.tmp"}:  # all that a kill at once leaves
            return
        if MARKER not in inside:
            raise BadInput(f"{self.folder} holds something already, such as {min(inside)}. Give a new or empty folder.")
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            settings, done = found["settings"], found["done"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BadInput(f"{self._path} cannot be read: {error}. Remove {self.folder} and export again.") from error
        if settings != self.settings:
            names = [name for name in self.settings if settings.get(name) != self.settings[name]]
            raise BadInput(
                f"{self.folder} is an export that was stopped, of another kind (different: {', '.join(names)}). "
                "Run it again as it was, or remove the folder."
            )
        self.done = {name: entry for name, entry in done.items() if (self.folder / name).is_file()}

    def begin(self) -> None:
        """Say that the folder is unfinished, before anything else is in it."""
        write_json(self._path, {"note": EXPLANATION, "settings": self.settings, "done": self.done})

    def whole(self, temporary: Path, name: str, entry: Mapping[str, Any]) -> None:
        """Give a whole file its name and remember it."""
        os.replace(temporary, self.folder / name)
        self.done[name] = dict(entry)
        self.begin()

    def end(self) -> None:
        """The folder is whole."""
        self._path.unlink()
