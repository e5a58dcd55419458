"""The edit as a checkpoint: the files of the source, with the bytes of the writers changed and nothing else."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from refusal.architectures import Architecture
from refusal.direction import Direction
from refusal.errors import UnsupportedModel
from refusal.records import disk_error, file_hash, write_bytes
from refusal.weights.card import ablation_card
from refusal.weights.covering import Coverage, covered, planned
from refusal.weights.names import Layout, Tie, lay_out
from refusal.weights.papers import (
    CARD,
    FORMAT,
    RECORD,
    SOURCE_CARD,
    SUMS,
    describe_direction,
    direction_hash,
    write_papers,
)
from refusal.weights.provenance import check_origin, files_fingerprint
from refusal.weights.safetensors_files import INDEX, SINGLE, Files, read_files
from refusal.weights.source import source_folder
from refusal.weights.streamed import Edit, header_growth, write_edited
from refusal.weights.target import check_space, outside
from refusal.weights.unfinished import MARKER, Unfinished
from refusal.weights.untying import check_untied, untied_config, untied_index

WORKERS = 2  # files written at once: one is copied while another is edited


@dataclass(frozen=True)
class Export:
    """What an export did."""

    folder: Path
    source: str
    direction: Mapping[str, Any]
    coverage: Coverage
    untied: bool
    left_out: tuple[str, ...]  # files of the source that hold the unedited weights once more
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "form": "checkpoint",
            "intervention": "ablation",
            "source": self.source,
            "direction": dict(self.direction),
            "untied": self.untied,
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "coverage": self.coverage.record(),
        }


@dataclass(frozen=True)
class _Plan:
    """Everything that is known before anything is written."""

    name: str
    files: Files
    layout: Layout
    edits: Sequence[Edit]
    direction: Direction
    tie: Tie | None  # what is to be untied
    rewritten: Mapping[str, bytes]  # small files with other contents than the source's
    checksums: bool


def export_checkpoint(
    source: str | Path,
    direction: Direction,
    out: str | Path,
    *,
    tied: Literal["untie", "refuse"] = "untie",
    incomplete_ok: bool = False,
    effect: Mapping[str, Any] | None = None,
    checksums: bool = True,
    architecture: Architecture | None = None,
    from_another_model: bool = False,
) -> Export:
    """Write a checkpoint whose writers no longer write along r̂ (paper eq. 5, section E), without loading the model.

    `source` is a folder or a Hub id. Every file is copied, and of the writers' tensors each is edited in float32 and
    rounded once to its own dtype, a matrix at a time; a second try after a kill goes on and ends in the same bytes.
    Tied embeddings are untied, or refused. `effect` holds measured results for the model card, `checksums` costs about
    as much processor time as the copy, and `architecture` is a row of your own. Before anything is written: BadInput
    for a source, direction or folder that does not fit, and for a direction that was found in other weights unless
    `from_another_model`, UnsupportedModel for a model that cannot be edited on disk, or not completely unless
    `incomplete_ok`, Unavailable for a disk without room. The source is only read.
    """
    plan = _plan(source, direction, tied, checksums, architecture)
    weights = files_fingerprint(plan.files, plan.layout)
    notes = check_origin(direction, weights, plan.name, from_another_model=from_another_model)
    before = covered(plan.layout, {})
    before.require_complete(plan.name, incomplete_ok=incomplete_ok)
    folder = outside(out, plan.files.folder)
    marker = Unfinished(folder, _settings(plan, tied))
    marker.check()
    _check_space(plan, marker)
    try:
        marker.begin()
        _write_files(plan, marker)
        return _finish(plan, marker, (*notes, *_unloaded(plan.layout)), effect)
    except OSError as error:
        raise disk_error(folder, error) from error


def _plan(
    source: str | Path,
    direction: Direction,
    tied: Literal["untie", "refuse"],
    checksums: bool,
    architecture: Architecture | None,
) -> _Plan:
    files = read_files(source_folder(source))
    layout = lay_out(files, architecture)
    edits = planned(files, layout, direction)
    tie = layout.tie if any(edit.stored == layout.tie.embedding for edit in edits if layout.tie) else None
    if tie and tied == "refuse":
        raise UnsupportedModel(
            f"The embeddings of {source} are tied: editing the embedding would edit the unembedding too, which "
            'ablation does not. Let the export untie them (tied="untie").'
        )
    rewritten = {}
    if tie:
        config = untied_config((files.folder / "config.json").read_text(encoding="utf-8"))
        check_untied(files, config, tie)
        rewritten["config.json"] = config.encode()
        if INDEX in files.other_files and files.shards != (SINGLE,) and not tie.stored_twice:
            rewritten[INDEX] = untied_index(files, tie)
    return _Plan(str(source), files, layout, edits, direction, tie, rewritten, checksums)


def _settings(plan: _Plan, tied: str) -> dict[str, Any]:
    files = [*plan.files.shards, *plan.files.other_files]
    stats = {name: os.stat(plan.files.folder / name) for name in files}
    return {
        "format": FORMAT,
        "source": plan.name,
        "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
        "direction": direction_hash(plan.direction),
        "tied": tied,
        "checksums": plan.checksums,
        "edited": len(plan.edits),
    }


def _check_space(plan: _Plan, marker: Unfinished) -> None:
    sizes = {name: size for name, (size, _) in marker.settings["files"].items()}
    need = sum(size for name, size in sizes.items() if name not in marker.done)
    if (copy := _copied(plan)) and copy[0].file not in marker.done:
        need += header_growth(plan.files.folder / copy[0].file, copy)
    check_space(marker.folder, need)


def _copied(plan: _Plan) -> tuple[Any, str] | None:
    """Return the embedding and the name under which its original is kept, where the file has to grow by it."""
    return (plan.tie.embedding, plan.tie.unembedding) if plan.tie and not plan.tie.stored_twice else None


def _write_files(plan: _Plan, marker: Unfinished) -> None:
    ours = (CARD, RECORD, SUMS, SOURCE_CARD, MARKER)
    others = [name for name in plan.files.other_files if name not in (*ours, "config.json")]
    names = {name: name for name in (*plan.files.shards, *others)}
    if CARD in plan.files.other_files:
        names[CARD] = SOURCE_CARD
    todo = [(name, target) for name, target in names.items() if target not in marker.done]
    pool, threads = ThreadPoolExecutor(WORKERS), torch.get_num_threads()
    torch.set_num_threads(1)  # a thread a file is quicker than several for the same small block
    try:
        running = {pool.submit(_write_one, plan, marker.folder, *pair): pair[1] for pair in todo}
        for future in as_completed(running):
            marker.whole(_temporary(marker.folder / running[future]), running[future], future.result())
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
    # Without it nothing loads the folder, so it comes when all else is whole.
    entry = _write_one(plan, marker.folder, "config.json", "config.json")
    marker.whole(_temporary(marker.folder / "config.json"), "config.json", entry)


def _write_one(plan: _Plan, folder: Path, name: str, target: str) -> dict[str, Any]:
    """Write one file under a temporary name; return its hash and what its writers write along the direction."""
    temporary = _temporary(folder / target)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    if name in plan.rewritten:
        write_bytes(temporary, plan.rewritten[name])
        return {"sha256": file_hash(temporary) if plan.checksums else "", "shares": {}}
    edits = [edit for edit in plan.edits if edit.stored.file == name]
    copy = _copied(plan)
    there = copy if copy and copy[0].file == name else None
    written, digest = write_edited(plan.files.folder / name, temporary, edits, copy=there, checksum=plan.checksums)
    return {"sha256": digest, "shares": {e.stored.name: w.shares for e, w in zip(edits, written, strict=True)}}


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _finish(plan: _Plan, marker: Unfinished, notes: tuple[str, ...], effect: Mapping[str, Any] | None) -> Export:
    shares = {name: pair for entry in marker.done.values() for name, pair in entry["shares"].items()}
    left_out, folder = tuple(plan.files.other_weights), plan.files.folder
    export = Export(
        marker.folder,
        plan.name,
        describe_direction(plan.direction),
        covered(plan.layout, shares),
        plan.tie is not None,
        left_out,
        notes,
    )
    card = ablation_card(
        plan.name,
        folder,
        plan.direction,
        export.coverage,
        untied=export.untied,
        left_out=left_out,
        notes=export.notes,
        effect=effect,
        checksums=plan.checksums,
    )
    hashes = {name: entry["sha256"] for name, entry in marker.done.items()}
    record = export.record() | {"effect": dict(effect or {})}
    write_papers(marker.folder, card, record, hashes if plan.checksums else None)
    marker.end()
    return export


def _unloaded(layout: Layout) -> list[str]:
    if not layout.unloaded:
        return []
    names = ", ".join(layout.unloaded[:3])
    return [f"{len(layout.unloaded)} tensors that transformers does not load are the source's, such as {names}."]
