"""A run folder → what there is to show: its records, its model where that can be loaded, and prompts to try."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from refusal import pipeline
from refusal.architectures import read_architecture
from refusal.config import BUNDLED, RunConfig
from refusal.direction import Candidates, Direction
from refusal.errors import BadRunFolder, RefusalError, Unavailable
from refusal.explorer.grid import Picked, Place, chosen_place
from refusal.explorer.live import Live
from refusal.findings import Findings, is_harmful, read_findings
from refusal.generation import MAX_NEW_TOKENS
from refusal.model import load_model
from refusal.study import load_contrast, run_folder
from refusal.weights.provenance import check_model

OFFERED = 50  # held-out prompts of each set
HUB_SECONDS = 10.0
# What a run was asked that says which model and prompts it is about.
ABOUT = ("system", "template_arguments", "architecture", "dtype", "device", "harmful", "harmless", "harmful_test")
FOLDERS = ("prompts_dir", "architecture")


@dataclass(frozen=True, eq=False)
class Subject:
    """What the page is about. `note` says why there is no live model."""

    findings: Findings
    picked: Picked | None  # where the run read its direction
    live: Live | None = None
    note: str = ""
    prompts: Sequence[tuple[str, str]] = ()  # (set, prompt)
    architecture: Path | None = None


def open_run(folder: Path, *, live: bool = True, say: Callable[[str], None] = lambda _: None) -> Subject:
    """Open a run folder; with `live`, its model too, and where that fails, a note says why.

    Raises BadRunFolder when the folder is none.
    """
    findings = read_findings(folder, partial=True)
    place = chosen_place(findings.selection)
    picked = None if place is None else Picked(place)
    if not live:
        return Subject(findings, picked, prompts=_recorded_prompts(findings))
    try:
        if picked is None:
            raise BadRunFolder(f"{folder} holds no chosen direction yet. Let the run go on, and open it again.")
        config = _asked(findings)
        say(f"Loading {config.model} ...")
        if _has_to_be_fetched(config.model):
            say("It is not on this machine: asking the Hugging Face Hub for it (--records shows the records alone) ...")
            _ask_hub(config.model)
        loaded = _load(findings, config, picked.first)
        return Subject(findings, picked, loaded, "", prompts_to_try(findings, config), config.architecture)
    except (RefusalError, OSError, RuntimeError, ValueError) as error:  # such as a device that is not there
        return Subject(findings, picked, note=str(error), prompts=_recorded_prompts(findings))


def find_run(model: str = BUNDLED, *, say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the run folder of a model at its default settings; a direction that is not there yet is found."""
    config = RunConfig(model=model)
    folder = run_folder(config)
    if not (folder / "direction.safetensors").exists():
        say(f"Finding the direction, once; it is kept in {folder} ...")
        pipeline.find(config)
    return folder


def prompts_to_try(findings: Findings, config: RunConfig) -> tuple[tuple[str, str], ...]:
    """Return held-out prompts: those that the run completed, else the test prompts of its sets, if they are here."""
    if recorded := _recorded_prompts(findings):
        return recorded
    try:
        sets = zip(("harmful", "harmless"), load_contrast(config), strict=True)
        return tuple((name, prompt.instruction) for name, one in sets for prompt in one.test[:OFFERED])
    except RefusalError:  # they would have to be downloaded; one can still type
        return ()


def other_half(prompts: Sequence[tuple[str, str]], prompt: str = "") -> tuple[str, str] | None:
    """Return the prompt beside which another is asked, with its set: a harmful one, beside a harmful one a harmless.

    It is the first of its set: nothing is picked.
    """
    wanted = not any(text == prompt and is_harmful(name) for name, text in prompts)
    return next(((name, text) for name, text in prompts if is_harmful(name) == wanted), None)


def _recorded_prompts(findings: Findings) -> tuple[tuple[str, str], ...]:
    sets = {name: next(iter(found.values())) for name, found in findings.completions.items() if "@" not in name}
    return tuple((name, row["prompt"]) for name, rows in sets.items() for row in rows[:OFFERED])


def _asked(findings: Findings) -> RunConfig:
    given: dict[str, Any] = {
        name: entry["value"]
        for name, entry in (findings.record.get("config") or {}).items()
        if name in (*ABOUT, *FOLDERS)
    }
    paths = {name: Path(given[name]) for name in FOLDERS if given.get(name)}
    return RunConfig(model=str(findings.record["model"]), **{**given, **paths})


def _load(findings: Findings, config: RunConfig, place: Place) -> Live:
    candidates = Candidates.load(findings.folder / "candidates.safetensors")
    model = load_model(
        config.model,
        dtype=config.dtype,
        device=config.device,
        system=config.system,
        template_arguments=config.template,
        architecture=read_architecture(config.architecture),
    )
    check_model(_own(findings, candidates, place), model)
    longest, graded = findings.record.get("max_new_tokens") or MAX_NEW_TOKENS, bool(findings.record.get("grammar"))
    return Live(model, candidates, max_new_tokens=longest, graded=graded)


def _has_to_be_fetched(model: str) -> bool:
    try:
        return model != BUNDLED and not Path(model).exists() and not try_to_load_from_cache(model, "config.json")
    except HFValidationError:  # no name that the Hub could know
        return False


def _ask_hub(model: str) -> None:
    """Ask once: the loader asks again and again, for minutes. What the Hub says of a model the loader tells."""
    try:
        HfApi().model_info(model, timeout=HUB_SECONDS)
    except (HfHubHTTPError, OfflineModeIsEnabled):
        return
    except Exception as error:  # of whichever client the Hub's library asks with
        raise Unavailable(
            f"'{model}' is not on this machine, and the Hugging Face Hub cannot be reached ({error}). "
            "Check the network, or give --records to see only what was recorded."
        ) from error


def _own(findings: Findings, candidates: Candidates, place: Place) -> Direction:
    saved = findings.folder / "direction.safetensors"
    return Direction.load(saved) if saved.exists() else candidates.at(*place)
