"""What will fail before it fails: versions, device, disk, caches, the Hub, the bundled model; each with its remedy."""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

Gravity = Literal["ok", "warning", "will fail"]
# Package → what of ours needs it. Beside them stands the core, which pyproject.toml lists without an extra.
EXTRAS = {
    "lm_eval": "capabilities",
    "pyarrow": "parquet",
    "peft": "adapters",
    "gguf": "gguf",
    "gradio": "explorer",
    "typst": "figures",
}
LITTLE, SMALL = 1.0, 20.0  # GB of free disk: of the folder of runs; of the model cache, below a model of 8 billion


@dataclass(frozen=True)
class Check:
    """One thing that a run may need: what was found, whether it will do, and what to do where not."""

    what: str
    found: str
    verdict: Gravity = "ok"
    remedy: str = ""

    def record(self) -> dict[str, str]:
        """Return plain values."""
        return asdict(self)


def examine(model: str = "") -> list[Check]:
    """Look at everything that a run needs here, and at one model by Hub id or folder if asked."""
    found = [*_packages(), _extras(), _device(), *_disks(), _bundled(), _prompts(), _hub()]
    return [*found, *([_model(model)] if model else [])]


def worst(checks: Sequence[Check]) -> Gravity:
    """Return the gravest verdict."""
    order: list[Gravity] = ["ok", "warning", "will fail"]
    return max((check.verdict for check in checks), key=order.index)


def _packages() -> Iterator[Check]:
    """Hold the installed core against the lower bounds of pyproject.toml."""
    from packaging.requirements import Requirement

    yield Check("python", platform.python_version())
    yield Check("refusal", _version("refusal"))
    for needed in map(Requirement, requires("refusal") or ()):
        if needed.marker is None:
            have = _version(needed.name)
            fits = have != "" and needed.specifier.contains(have, prereleases=True)
            remedy = f'pip install "{needed.name}{needed.specifier}"'
            if not fits or needed.name in ("torch", "transformers"):
                yield Check(needed.name, have or "not installed", "ok" if fits else "will fail", "" if fits else remedy)


def _extras() -> Check:
    missing = {extra: package for package, extra in EXTRAS.items() if not _version(package)}
    if not missing:
        return Check("extras", "all installed")
    install = f"where they are wanted: pip install 'refusal[{','.join(missing)}]'"
    return Check("extras", f"without {', '.join(missing.values())}", "warning", install)


def _device() -> Check:
    import psutil
    import torch

    memory = f"{psutil.virtual_memory().available / 2**30:.1f} GiB of memory free"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if names:
        free = [torch.cuda.mem_get_info(i)[0] / 2**30 for i in range(len(names))]
        return Check("device", ", ".join(f"{n} ({f:.0f} GiB free)" for n, f in zip(names, free, strict=True)))
    found = f"cpu, {torch.get_num_threads()} threads, {memory}"
    return Check("device", found, "warning", "the bundled model needs no more; a large one takes hours without a GPU")


def _disks() -> Iterator[Check]:
    from huggingface_hub.constants import HF_HUB_CACHE

    free, here = shutil.disk_usage(".").free / 1e9, f"{Path.cwd()}"
    if not os.access(".", os.W_OK):
        yield Check("folder for runs", f"{here} cannot be written to", "will fail", "work elsewhere, or give --out")
    else:
        little: dict[str, Any] = {"verdict": "warning", "remedy": "free some, or give --out"} if free < LITTLE else {}
        yield Check("folder for runs", f"{free:.1f} GB free in {here}", **little)
    place = next(folder for folder in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if folder.exists())
    free = shutil.disk_usage(place).free / 1e9
    remedy = "models of 8 billion parameters take 16 GB: free some, or set $HF_HOME to another disk"
    few: dict[str, Any] = {"verdict": "warning", "remedy": remedy} if free < SMALL else {}
    yield Check("model cache", f"{free:.1f} GB free in {HF_HUB_CACHE}", **few)


def _bundled() -> Check:
    """Hold the bundled weights against the sums that came with them."""
    from refusal.organism import WEIGHTS
    from refusal.records import file_hash, read_json

    sums = WEIGHTS / "sha256.json"
    if not sums.is_file():
        return Check("bundled model", "no recorded sums", "warning", "install the package again for released weights")
    wrong = [name for name, digest in read_json(sums).items() if not _is(WEIGHTS / name, digest, file_hash)]
    if wrong:
        return Check("bundled model", f"damaged: {', '.join(wrong)}", "will fail", "install the package again")
    return Check("bundled model", "whole")


def _is(path: Path, digest: str, hashed: Any) -> bool:
    return path.is_file() and hashed(path) == digest


def _prompts() -> Check:
    from refusal.prompts import list_prompts
    from refusal.prompts.download import cache_folder

    states = {each.name: each.state for each in list_prompts()}
    if damaged := [name for name, state in states.items() if state == "damaged"]:
        return Check("prompt sets", f"damaged: {', '.join(damaged)}", "will fail", f"remove them from {cache_folder()}")
    if there := [name for name, state in states.items() if state == "to download"]:
        remedy = "for models but the bundled one: they are downloaded once, or taken from --prompts-dir"
        return Check("prompt sets", f"{len(there)} to download into {cache_folder()}", "warning", remedy)
    return Check("prompt sets", f"all in {cache_folder()}")


def _hub() -> Check:
    from huggingface_hub import get_token
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        remedy = "unset HF_HUB_OFFLINE for models and data that are not in the cache"
        return Check("Hugging Face Hub", "switched off (HF_HUB_OFFLINE)", "warning", remedy)
    if get_token() is None:
        remedy = "for gated models (Llama, Gemma, Llama Guard): accept their licence there, then hf auth login"
        return Check("Hugging Face Hub", "not logged in", "warning", remedy)
    return Check("Hugging Face Hub", "logged in")


def _model(name: str) -> Check:
    """See whether a model's config can be had and its family is covered; no weight is read."""
    from transformers import AutoConfig

    from refusal.architectures import describe
    from refusal.config import BUNDLED
    from refusal.errors import BadInput
    from refusal.loading import commit_of, load_part
    from refusal.organism import checkpoint

    path = str(checkpoint("chat")) if name == BUNDLED else name
    try:
        kind = load_part(AutoConfig, path, {}).model_type
    except BadInput as error:
        return Check(name, "cannot be had", "will fail", str(error))
    commit = commit_of(path)
    found = kind if commit is None else f"{kind}, commit {commit[:8]}"
    if kind not in {row["model_type"] for row in describe()}:
        return Check(name, found, "will fail", "its family is not covered: give a row of yours with --architecture")
    return Check(name, f"{found}: a covered family")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
