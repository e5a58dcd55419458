"""Every setting of a run, once: field = flag = TOML key = keyword = line of docs/config.md. No torch."""

import json
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from tyro.conf import Positional, arg

from refusal.errors import BadInput, BadSetting, did_you_mean
from refusal.rule import Limits
from refusal.verdicts import read_judge

RECIPES = Path(__file__).parent / "recipes"
BUNDLED = "organism"  # the name under which the bundled chat model goes, and its texts and questions


@dataclass(frozen=True)
class RunConfig:
    """What `refusal run` is asked to do."""

    model: Annotated[Positional[str], arg(metavar="[MODEL]")] = BUNDLED
    """Hugging Face id or folder of the chat model; "organism" is the bundled one."""
    recipe: str | None = None
    """Settings to start from: "paper", "quick", or a TOML file; a --config file and flags win over it."""
    out: Path | None = None
    """Run folder; by default runs/<model>/<hash of these settings>."""
    harmful: str = "auto"
    """Harmful prompt set, file or folder; "auto": the bundled model's own, else the paper's."""
    harmless: str = "auto"
    """Harmless prompt set, file or folder; "auto" as above."""
    harmful_test: str = "auto"
    """Set whose test prompts are the harmful evaluation; "auto": that of `harmful`, for the paper's JailbreakBench."""
    prompts_dir: Path | None = None
    """Local folder with the official dataset files, instead of a download."""
    seed: int = 42
    """Seed of the sampling stream and of the random-direction controls; 42 is the paper's."""
    n_train: int = 128
    """Prompts of each class that the means are taken over, before filtering."""
    n_val: int = 32
    """Prompts of each class that candidates are scored on, before filtering."""
    n_test: int = 200
    """Prompts of each class in the evaluation (the paper: 100); a smaller set is used whole."""
    refusal_tokens: tuple[int, ...] = ()
    """Ids of the first tokens of a refusal; empty: known for the paper's families, else proposed from the model."""
    max_kl: float = 0.1
    """Highest KL score of a candidate."""
    min_induce: float = 0.0
    """Lowest induce score of a candidate."""
    prune_layers: float = 0.2
    """Share of the last layers that is never chosen."""
    sweep: Literal["full", "fast"] = "full"
    """"full" scores every candidate; "fast" only what the choice depends on: the same choice, a table with gaps."""
    stream_layers: bool = False
    """For a model that does not fit in memory: read it block by block, as far as the direction; the same numbers."""
    stream_memory: float | None = None
    """GiB of activations kept in main memory by stream_layers, the rest in files; by default half of what is free."""
    harmless_coefficient: float = 1.0
    """Coefficient of the direction when it is added on harmless prompts."""
    harmful_coefficient: float = -1.0
    """Coefficient of the direction when it is added on harmful prompts."""
    coefficients: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    """Coefficients of the addition curve on harmless prompts; empty: no curve."""
    n_curve: int = 64
    """Prompts behind every point of the addition curve."""
    randoms: int = 3
    """Random directions of the same length that the headline intervention of each test set is held against."""
    draws: int = 2
    """Other draws of train and validation prompts, each with a choice of its own: how much it depends on them."""
    evaluations: tuple[str, ...] = ()
    """Further sets or files whose test prompts are completed plain, ablated and with edited weights."""
    n_evaluation: int | None = None
    """First prompts of each further set; by default all it has."""
    systems: str = ""
    """TOML or JSON lines file of system prompts, or "default": these sets, else `harmful`, under each of them too."""
    texts: str = "auto"
    """Plain texts for the cross-entropy: "pile", or a file; "auto": the bundled model's language, else none."""
    pairs: str = "auto"
    """Questions with answers for the cross-entropy: "alpaca", or a file; "auto" as above."""
    n_documents: int | None = None
    """How many texts and how many pairs; by default 4,096 as in the paper, and 128 for the bundled model."""
    tasks: tuple[str, ...] = ("auto",)
    """Capability benchmarks of lm-evaluation-harness; "auto": the bundled model's own, else none; "paper": its six."""
    task_limit: int | None = None
    """First documents of every benchmark only; by default all."""
    mechanism: bool = True
    """Explain the direction once the results are there: suffixes, heads, geometry, and what else looks inside."""
    n_mechanism: int = 128
    """Prompts of each class that these analyses take; 128 as in the paper."""
    suffixes: tuple[str, ...] = ()
    """Adversarial suffixes to study, or files with one a line; the bundled model has one of its own."""
    base: str | None = None
    """Base model that the chat model was made from, to look for the direction in; the bundled model has its own."""
    max_new_tokens: int | None = None
    """Longest completion, in tokens; by default 512 as in the paper, and 96 for the bundled model's short answers."""
    judges: tuple[str, ...] = ()
    """Further judges (docs/files.md), beside substring and, for the bundled language, grammar."""
    system: str | None = None
    """System prompt; none by default, as in the paper."""
    template_arguments: str = "{}"
    """JSON object passed on to the chat template, such as {"enable_thinking": false}."""
    architecture: Path | None = None
    """TOML or JSON file with a row of your own, for a family of models that is not covered (docs/files.md)."""
    dtype: str = "auto"
    """float32, bfloat16, float16; "auto": float32 on a CPU, else the checkpoint's."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; "auto": the fastest there is."""

    def __post_init__(self) -> None:
        counts = (
            "n_train",
            "n_val",
            "n_test",
            "n_curve",
            "n_documents",
            "n_evaluation",
            "task_limit",
            "n_mechanism",
            "max_new_tokens",
        )
        for name in ("randoms", *counts):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSetting(f"{name} is {value}: give at least 1.")
        if self.draws < 0:
            raise BadSetting(f"draws is {self.draws}: give 0 for none, or more.")
        if not 0 <= self.seed < 2**62:
            raise BadSetting(f"seed is {self.seed}: give a number from 0 to 2^62 − 1.")
        if self.sweep not in ("full", "fast"):
            raise BadSetting(f"sweep is {self.sweep!r}: give full or fast.")
        if self.stream_layers and self.sweep == "fast":
            raise BadSetting("stream_layers scores every candidate in one pass over the blocks. Leave sweep at full.")
        if self.stream_memory is not None and not (self.stream_layers and self.stream_memory >= 0):
            raise BadSetting(
                f"stream_memory is {self.stream_memory}: give GiB from 0 up, and together with stream_layers."
            )
        if twice := [text for i, text in enumerate(self.judges) if text in self.judges[:i]]:
            raise BadSetting(f"judges names '{twice[0]}' twice. Name it once.")
        _ = self.limits, self.template, [read_judge(text) for text in self.judges]  # their own checks

    @property
    def limits(self) -> Limits:
        """The selection rule's limits."""
        return Limits(max_kl=self.max_kl, min_induce=self.min_induce, prune_layers=self.prune_layers)

    @property
    def template(self) -> dict[str, Any]:
        """The chat template's arguments. Raises BadSetting when they are not a JSON object."""
        try:
            value = json.loads(self.template_arguments)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise BadSetting(
                f"template_arguments is {self.template_arguments!r}, not a JSON object such as "
                '{"enable_thinking": false}.'
            )
        return value

    def science(self) -> dict[str, Any]:
        """Every setting but where the output goes, how a model is read, who judges and what explains: the run's own."""
        aside = ("out", "recipe", "stream_layers", "stream_memory", "judges")
        aside += ("mechanism", "n_mechanism", "suffixes", "base")
        return {name: value for name, value in asdict(self).items() if name not in aside}

    def record(self) -> dict[str, dict[str, Any]]:
        """Return, for run.json, every setting with its value and whether it was given or is the default."""
        default = asdict(RunConfig())
        return {name: {"value": value, "given": value != default[name]} for name, value in asdict(self).items()}


def read_config(path: Path, *, recipe: str | None = None) -> RunConfig:
    """Read settings from TOML, over those of a recipe: the one given here, else the one that the file names.

    Raises BadInput for a broken file, BadSetting for an unknown key or a wrong type.
    """
    values = _read(path)
    named = values.pop("recipe", None)
    chosen = recipe or named
    return replace(read_recipe(chosen) if chosen else RunConfig(), **values)


def read_recipe(name: str) -> RunConfig:
    """Return the settings of a recipe: "paper" (the official ones), "quick", or a TOML file of your own.

    Raises BadInput for a name that is neither, and as `read_config`.
    """
    known = sorted(path.stem for path in RECIPES.glob("*.toml"))
    path = RECIPES / f"{name}.toml" if name in known else Path(name)
    if name not in known and path.suffix != ".toml":
        near = did_you_mean(name, known)
        raise BadInput(f"There is no recipe '{name}'. {near}Give {', '.join(known)}, or a TOML file.")
    values = _read(path)
    if "recipe" in values:
        raise BadSetting(f"The recipe {path} names a recipe itself. Put all its settings into one file.")
    return replace(RunConfig(), recipe=name, **values)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"Cannot read the settings in {path}: {error}. Give a TOML file with the keys of docs/config.md."
        ) from error
    return {name: _value(name, value) for name, value in values.items()}


def _value(name: str, value: Any) -> Any:
    """Turn a TOML value into the field's type."""
    hint = get_type_hints(RunConfig).get(name)
    if hint is None:
        near = did_you_mean(name, [field.name for field in fields(RunConfig)])
        raise BadSetting(f"There is no setting '{name}'. {near}See docs/config.md.")
    kinds = get_args(hint) or (hint,)
    if value in kinds:  # one of the words of a Literal
        return value
    if isinstance(value, list) and get_origin(hint) is tuple and all(type(v) in (kinds[0], int) for v in value):
        return tuple(kinds[0](v) for v in value)
    if get_origin(hint) is not tuple:
        for kind in kinds:
            if type(value) is kind:
                return value
            if (kind, type(value)) in ((Path, str), (float, int)):
                return kind(value)
    raise BadSetting(f"The setting '{name}' is {value!r}; expected {hint}. See docs/config.md.")
