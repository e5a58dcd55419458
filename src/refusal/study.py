"""Opening a run: the model, the prompts and the folder that every step works with, all recorded."""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from refusal.architectures import read_architecture
from refusal.conditions import MAIN, Condition, Kind, conditions
from refusal.config import BUNDLED, RunConfig
from refusal.errors import BadSetting, TooFewPrompts
from refusal.generation import MAX_NEW_TOKENS
from refusal.layerwise import Layered, load_layered
from refusal.loading import commit_of
from refusal.model import ChatModel, load_model
from refusal.prompts import Prompt, PromptSet, Sample, check_disjoint, load_prompts, paper_sample, prompts_sha256
from refusal.prompts.load import ORGANISM_SOURCE
from refusal.prompts.systems import load_systems
from refusal.records import Run, file_hash, value_hash
from refusal.results import SETS
from refusal.stages import Stages

BUNDLED_TOKENS = 96


@dataclass(frozen=True)
class Evaluation:
    """Held-out prompts that are completed under every condition."""

    name: str
    prompts: tuple[Prompt, ...]
    headline: Kind | None = None  # what the paper does on this set; none for a set beside the two
    system: str | None = None
    origin: str = ""  # where the system prompt is from

    def record(self) -> dict[str, Any]:
        """Describe the set for run.json: no prompt is quoted."""
        own = {"n": len(self.prompts), "sha256": prompts_sha256(self.prompts)}
        system = {"system": self.system} | ({"system from": self.origin} if self.origin else {})
        return {"name": self.name, **own, "headline": self.headline, **system}


@dataclass(frozen=True, eq=False)
class Study:
    """What every step works with."""

    config: RunConfig
    run: Run
    model: ChatModel
    contrast: tuple[PromptSet, PromptSet]  # harmful, harmless
    sample: Sample
    evaluations: tuple[Evaluation, ...]
    base: str  # hash of the settings, the model's files and the prompts: what every step depends on
    grammar: bool  # the prompts are of the bundled language, whose answers can be graded exactly
    max_new_tokens: int
    stages: Stages
    layered: Layered | None = None  # the same model, where its blocks are read one by one

    @property
    def tests(self) -> dict[str, tuple[Prompt, ...]]:
        """The two evaluation sets, unfiltered."""
        return {"harmful": self.sample.harmful_test, "harmless": self.sample.harmless_test}

    @property
    def chosen(self) -> str:
        """The hash of the chosen direction."""
        return file_hash(self.run.folder / "direction.safetensors")

    def coefficient(self, evaluation: Evaluation) -> float:
        """What the direction is multiplied by where it is added."""
        harmless = evaluation.headline == "addition"
        return self.config.harmless_coefficient if harmless else self.config.harmful_coefficient

    def conditions(self, evaluation: Evaluation) -> tuple[Condition, ...]:
        """Everything that is done to the model while it answers a set."""
        return conditions(evaluation.headline, randoms=self.config.randoms)

    def release(self) -> None:
        """Give the memory of the model's weights back, for a judge's; it cannot run any more."""
        for parameter in self.model.network.parameters():
            parameter.data = parameter.data.new_empty(0)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def note_choices(self, reasons: Mapping[str, str]) -> None:
        """Add to run.json what was chosen, or given, and why."""
        self.run.note(choices={**self.run.record["choices"], **reasons})

    def step(self, name: str, inputs: Sequence[Any], outputs: Sequence[Path], body: Callable[[], None]) -> None:
        """Run a step unless it has run on the same inputs."""
        digest = value_hash(inputs)
        if self.run.done(name, digest):
            return self.stages.skip()
        written = [str(path.relative_to(self.run.folder)) for path in outputs]
        with self.stages.step(name), self.run.step(name, digest, written):
            body()

    def bar(self, text: str, total: int, *, done: int = 0) -> AbstractContextManager[Callable[[int], None]]:
        """Show how far a step is; yields the function that advances it."""
        return self.stages.part(text, total, done=done)


@contextmanager
def open_study(config: RunConfig) -> Iterator[Study]:
    """Open the run folder of a config, load what it asks for, and record every choice; shows stages on stderr."""
    stages = Stages(Console(stderr=True))
    with stages.shown():
        stages.enter("model")
        study = _open(config, stages)
        try:
            yield study
        finally:
            if study.run.record["status"] == "running":
                study.run.note(status="stopped")


def _open(config: RunConfig, stages: Stages) -> Study:
    # Loaded first, so that a misspelt name leaves no folder behind.
    row = read_architecture(config.architecture)
    settings: Any = {"dtype": config.dtype, "device": config.device, "system": config.system}
    settings |= {"template_arguments": config.template, "architecture": row}
    layered = load_layered(config.model, **settings) if config.stream_layers else None
    model = layered.model if layered else load_model(config.model, **settings)
    harmful, harmless = load_contrast(config)
    sample = _sample(config, harmful, harmless)
    evaluations = (*_own_evaluations(config, sample), *_further_evaluations(config, model, sample))
    _check_held_out(evaluations, harmful, harmless)
    names = [evaluation.name for evaluation in evaluations]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadSetting(f"Two evaluation sets are called '{twice[0]}'. Rename one file, or leave one of them out.")
    # What was resolved, not only what was asked: a run begun on a GPU must not go on in another dtype on a CPU.
    resolved = [str(model.network.dtype), model.device.type, *([] if row is None else [asdict(row)])]
    drawn = [sample.record(), [evaluation.record() for evaluation in evaluations]]
    base = value_hash([config.science(), _fingerprint(model), drawn, resolved])
    grammar = harmful.source == harmless.source == ORGANISM_SOURCE
    max_new_tokens, reason = _longest(config)
    sets = {setting: why for setting, (_, why) in _prompt_sets(config).items()}
    choices = {**model.choices, **sets, "max_new_tokens": reason}
    folder = run_folder(config)
    opened = Run.open(folder, config.science())
    opened.note(
        model=config.model,
        n_layers=model.n_layers,
        config=config.record(),
        environment=environment(model),
        choices=choices,
        position_tokens=model.post_instruction_tokens,
        grammar=grammar,
        max_new_tokens=max_new_tokens,
        prompts={
            "sets": {"harmful": harmful.record(), "harmless": harmless.record()},
            "sample": sample.record(),
        },
        evaluations=[evaluation.record() for evaluation in evaluations],
    )
    return Study(
        config=config,
        run=opened,
        model=model,
        contrast=(harmful, harmless),
        sample=sample,
        evaluations=evaluations,
        base=base,
        grammar=grammar,
        max_new_tokens=max_new_tokens,
        stages=stages,
        layered=layered,
    )


def run_folder(config: RunConfig) -> Path:
    """Return the folder of a run: the one asked for, else one of its own under `runs`."""
    return config.out or Path("runs") / _slug(config.model) / value_hash(config.science())[:8]


def load_contrast(config: RunConfig) -> tuple[PromptSet, PromptSet]:
    """Load the two prompt sets of a run."""
    names = {setting: name for setting, (name, _) in _prompt_sets(config).items()}
    harmful, harmless = (load_prompts(names[name], folder=config.prompts_dir) for name in SETS)
    if test := names["harmful_test"]:
        evaluation = load_prompts(test, folder=config.prompts_dir, file_split="test")
        harmful = replace(harmful, test=evaluation.test, notes={**harmful.notes, "test": evaluation.record()})
    return harmful, harmless


def _prompt_sets(config: RunConfig) -> dict[str, tuple[str, str]]:
    """Return setting → name of a prompt set, and why that one; no name is the test split of the harmful set itself."""
    found: dict[str, tuple[str, str]] = {}
    for setting in SETS:
        if (asked := getattr(config, setting)) != "auto":
            found[setting] = asked, f"{asked}: given"
        elif config.model == BUNDLED:
            found[setting] = setting, f"{setting}: the bundled model's own"
        else:
            found[setting] = f"paper-{setting}", f"paper-{setting}: the paper's"
    if config.harmful_test != "auto":
        name = config.harmful_test
        found["harmful_test"] = name, f"{name or 'the test prompts of the harmful set'}: given"
    elif found["harmful"][0] == "paper-harmful":
        found["harmful_test"] = "jailbreakbench", "jailbreakbench: what the paper evaluates on"
    else:
        found["harmful_test"] = "", "the test prompts of the harmful set"
    return found


def _sample(config: RunConfig, harmful: PromptSet, harmless: PromptSet) -> Sample:
    return paper_sample(
        harmful,
        harmless,
        seed=config.seed,
        n_train=config.n_train,
        n_val=config.n_val,
        n_harmless_test=config.n_test,
        n_harmful_test=config.n_test,
    )


def _own_evaluations(config: RunConfig, sample: Sample) -> tuple[Evaluation, ...]:
    tests = {"harmful": sample.harmful_test, "harmless": sample.harmless_test}
    return tuple(Evaluation(name, prompts, MAIN[name], config.system) for name, prompts in tests.items())


def _further_evaluations(config: RunConfig, model: ChatModel, sample: Sample) -> Iterator[Evaluation]:
    """Yield the sets beside the two, and each under every system prompt that is asked for."""
    systems = load_systems(config.systems, model) if config.systems else ()
    sets = [_evaluation_set(name, config) for name in config.evaluations]
    for name, prompts in sets:
        yield Evaluation(name, prompts, system=config.system)
    for name, prompts in sets or [("harmful", sample.harmful_test)]:
        for system in systems:
            if system.text == config.system:
                continue  # that is the set itself
            yield Evaluation(f"{name}@{system.name}", prompts, system=system.text, origin=system.origin)


def _check_held_out(evaluations: Sequence[Evaluation], harmful: PromptSet, harmless: PromptSet) -> None:
    """Raise LeakedPrompts for a set with a prompt that the direction is, or by another draw would be, found on."""
    sets = {"harmful": harmful, "harmless": harmless}
    seen = {f"{name} {split}": found[split] for name, found in sets.items() for split in ("train", "val")}
    for evaluation in evaluations:
        check_disjoint({f"{evaluation.name} (evaluation)": evaluation.prompts, **seen})


def _evaluation_set(name: str, config: RunConfig) -> tuple[str, tuple[Prompt, ...]]:
    found = load_prompts(name, folder=config.prompts_dir, file_split="test")
    if not found.test:
        raise TooFewPrompts(f"The set {name!r} has no test prompts to evaluate on ({found.counts}). Choose another.")
    return _slug(found.name).replace(".", "-"), found.test[: config.n_evaluation]


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
    name = str(model.network.config.name_or_path)
    folder = Path(name)
    # Only what a checkpoint is made of: somebody may save a direction into the same folder.
    patterns = ("*config.json", "tokenizer*", "vocab*", "merges*", "*.jinja", "*.model", "model*", "pytorch_model*")
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)}) if folder.is_dir() else []
    return [commit_of(name), [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]]


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name.strip("/").rsplit("/", 1)[-1]) or "model"
