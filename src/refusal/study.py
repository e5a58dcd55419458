"""Opening a run: the model, the prompts and the folder that every step works with, all recorded."""

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from refusal.architectures import read_architecture
from refusal.config import RunConfig
from refusal.generation import MAX_NEW_TOKENS
from refusal.layerwise import Layered, load_layered
from refusal.model import BUNDLED, ChatModel, load_model
from refusal.prompts import Prompt, PromptSet, Sample, load_prompts, paper_sample
from refusal.prompts.load import ORGANISM_SOURCE
from refusal.records import Run, value_hash
from refusal.results import SETS

BUNDLED_TOKENS = 96


@dataclass(frozen=True, eq=False)
class Study:
    """What every step works with."""

    config: RunConfig
    run: Run
    model: ChatModel
    sample: Sample
    base: str  # hash of the settings, the model's files and the prompts: what every step depends on
    grammar: bool  # the prompts are of the bundled language, whose answers can be graded exactly
    max_new_tokens: int
    progress: Progress
    layered: Layered | None = None  # the same model, where its blocks are read one by one

    @property
    def tests(self) -> dict[str, tuple[Prompt, ...]]:
        """The two evaluation sets, unfiltered."""
        return {"harmful": self.sample.harmful_test, "harmless": self.sample.harmless_test}

    def step(self, name: str, inputs: Sequence[Any], outputs: Sequence[Path], body: Callable[[], None]) -> None:
        """Run a step unless it has run on the same inputs."""
        digest = value_hash(inputs)
        if not self.run.done(name, digest):
            with self.run.step(name, digest, [str(path.relative_to(self.run.folder)) for path in outputs]):
                body()

    @contextmanager
    def bar(self, text: str, total: int, *, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Show a progress bar on stderr; yields the function that advances it."""
        task = self.progress.add_task(text, total=total, completed=done)
        yield lambda n: self.progress.advance(task, n)
        self.progress.remove_task(task)


@contextmanager
def open_study(config: RunConfig) -> Iterator[Study]:
    """Open the run folder of a config, load what it asks for, and record every choice."""
    # Loaded first, so that a misspelt name leaves no folder behind.
    row = None if config.architecture is None else read_architecture(config.architecture)
    settings: Any = {"dtype": config.dtype, "device": config.device, "system": config.system}
    settings |= {"template_arguments": config.template, "architecture": row}
    layered = load_layered(config.model, **settings) if config.stream_layers else None
    model = layered.model if layered else load_model(config.model, **settings)
    harmful, harmless = load_contrast(config)
    sample = paper_sample(
        harmful,
        harmless,
        seed=config.seed,
        n_train=config.n_train,
        n_val=config.n_val,
        n_harmless_test=config.n_test,
        n_harmful_test=config.n_test,
    )
    # What was resolved, not only what was asked: a run begun on a GPU must not go on in another dtype on a CPU.
    resolved = [str(model.network.dtype), model.device.type, *([] if row is None else [asdict(row)])]
    base = value_hash([config.science(), _fingerprint(model), sample.record(), resolved])
    grammar = harmful.source == harmless.source == ORGANISM_SOURCE
    max_new_tokens, reason = _longest(config)
    choices = {**model.choices, "max_new_tokens": reason}
    folder = config.out or Path("runs") / _slug(config.model) / value_hash(config.science())[:8]
    opened = Run.open(folder, config.science())
    opened.note(
        model=config.model,
        n_layers=model.n_layers,
        config=config.record(),
        environment=environment(model),
        choices=choices,
        position_tokens=model.post_instruction_tokens,
        grammar=grammar,
        prompts={
            "sets": {"harmful": harmful.record(), "harmless": harmless.record()},
            "sample": sample.record(),
        },
    )
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            yield Study(config, opened, model, sample, base, grammar, max_new_tokens, progress, layered)
    finally:
        if opened.record["status"] == "running":
            opened.note(status="stopped")


def load_contrast(config: RunConfig) -> tuple[PromptSet, PromptSet]:
    """Load the two prompt sets of a run; "auto" is the bundled model's own for it, the paper's for any other."""
    own = config.model == BUNDLED
    names = {
        "harmful": _named(config.harmful, "harmful" if own else "paper-harmful"),
        "harmless": _named(config.harmless, "harmless" if own else "paper-harmless"),
    }
    harmful, harmless = (load_prompts(names[name], folder=config.prompts_dir) for name in SETS)
    # The paper evaluates on JailbreakBench, not on the test split that goes with its training prompts.
    test = _named(config.harmful_test, "jailbreakbench" if names["harmful"] == "paper-harmful" else "")
    if test:
        whole = "test" if Path(test).is_file() else None  # a file of one's own is all test prompts
        evaluation = load_prompts(test, folder=config.prompts_dir, split=whole)
        harmful = replace(harmful, test=evaluation.test, notes={**harmful.notes, "test": evaluation.record()})
    return harmful, harmless


def _named(asked: str, automatic: str) -> str:
    return automatic if asked == "auto" else asked


def environment(model: ChatModel) -> dict[str, Any]:
    """Return what a number may depend on: versions, device, dtype, threads."""
    packages = ("refusal", "torch", "transformers", "tokenizers", "numpy")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "device": str(model.device),
        "dtype": str(model.network.dtype),
        "threads": torch.get_num_threads(),
    }


def _longest(config: RunConfig) -> tuple[int, str]:
    """Return the longest completion and why."""
    if config.max_new_tokens:
        return config.max_new_tokens, f"{config.max_new_tokens}: given"
    if config.model == BUNDLED:
        return BUNDLED_TOKENS, f"{BUNDLED_TOKENS}: the bundled model's right answers and refusals are under 40 tokens"
    return MAX_NEW_TOKENS, f"{MAX_NEW_TOKENS}: the official code's"


def _fingerprint(model: ChatModel) -> list[Any]:
    """Return what tells states of a checkpoint apart without reading gigabytes: sizes and times of its files."""
    folder = Path(str(model.network.config.name_or_path))
    # Only what a checkpoint is made of: somebody may save a direction into the same folder.
    patterns = ("*config.json", "tokenizer*", "vocab*", "merges*", "*.jinja", "*.model", "model*", "pytorch_model*")
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)}) if folder.is_dir() else []
    return [
        getattr(model.network.config, "_commit_hash", None),
        [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files],
    ]


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name.strip("/").rsplit("/", 1)[-1]) or "model"
