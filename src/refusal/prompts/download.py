"""A pinned file from a local folder, the cache or the network, never used before its checksum fits."""

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from refusal.errors import BadInput, Unavailable
from refusal.prompts.sources import COMMIT, Part

TIMEOUT_SECONDS = 30.0  # for connecting and for every silence after


def cache_folder() -> Path:
    """Where downloads are kept: `REFUSAL_CACHE`, else `refusal` in the user's cache folder."""
    if given := os.environ.get("REFUSAL_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "refusal"


def cached_path(part: Part) -> Path:
    """Where one pinned file lies once it is downloaded."""
    return cache_folder() / "prompts" / COMMIT[:12] / part.path


def is_cached(part: Part) -> bool:
    """Tell whether a pinned file is in the cache, whole and unaltered."""
    path = cached_path(part)
    return path.is_file() and _mismatch(path.read_bytes(), part) is None


def pinned_bytes(part: Part, *, folder: str | os.PathLike[str] | None = None) -> bytes:
    """Return the bytes of a pinned file: from `folder` if given, else the cache, else downloaded into it.

    Raises BadInput when a local or cached file is missing or does not have the pinned checksum, Unavailable
    when the download fails or what arrives does not have it (nothing is kept then).
    """
    if folder is not None:
        return _read(Path(folder) / part.path, part, remedy="Give your own version by its path, not by name.")
    path = cached_path(part)
    if path.exists():
        return _read(path, part, remedy="Delete it, and it is downloaded again.")
    data = _download(part)
    _write_atomically(path, data)
    return data


def _read(path: Path, part: Part, *, remedy: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}). A prompts folder has the layout of the official "
            f"repository's `dataset` folder, here {part.path}; leave the folder out to download it."
        ) from error
    if problem := _mismatch(data, part):
        raise BadInput(f"{path}: truncated or altered: {problem}. {remedy}")
    return data


def _download(part: Part) -> bytes:
    remedy = (
        f"Try again with a network, or fetch it elsewhere, lay it at {part.path} in a folder and give that "
        "folder (--prompts-dir)."
    )
    try:
        with urllib.request.urlopen(part.url, timeout=TIMEOUT_SECONDS) as response:
            data = response.read()
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Unavailable(f"{part.url}: cannot be downloaded ({reason!s}). {remedy}") from error
    if problem := _mismatch(data, part):
        raise Unavailable(f"{part.url}: truncated or altered on the way: {problem}. Nothing was kept. {remedy}")
    return data


def _mismatch(data: bytes, part: Part) -> str | None:
    found = hashlib.sha256(data).hexdigest()
    if found == part.sha256:
        return None
    return f"{len(data)} bytes with SHA-256 {found[:16]}…, expected {part.sha256[:16]}…"


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise Unavailable(
            f"{path}: cannot be written ({error.strerror}). Set REFUSAL_CACHE to a folder that can be written."
        ) from error
