"""Which benchmarks are run, with which settings, and how the harness comes to have their tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from refusal.config import BUNDLED
from refusal.errors import BadInput, Unavailable, did_you_mean

SHOTS_SEED = 1234  # the harness's own, for the draw of examples


@dataclass(frozen=True)
class Benchmark:
    """A task or a group of tasks of the harness, and what is read from it; None is what the harness has for it."""

    name: str  # the harness's, or the path of a task in YAML
    metric: str | None = None
    shots: int | None = None  # examples before every question
    filter: str | None = None  # which reading of a generated answer
    chat: bool = False  # through the chat template


# Paper, Tables 3 and 8 with footnote 4: without chat template; MMLU with the harness's defaults, which are no examples;
# the others as the first Open LLM Leaderboard had them.
PAPER = (
    Benchmark("mmlu", "acc", 0),
    Benchmark("tinyHellaswag", "acc_norm", 10),
    Benchmark("arc_challenge", "acc_norm", 25),
    Benchmark("winogrande", "acc", 5),
    Benchmark("gsm8k", "exact_match", 5, "strict-match"),
    Benchmark("truthfulqa_mc2", "acc", 0),
)
ORGANISM = (Benchmark(BUNDLED, "acc", 0, chat=True),)  # what the bundled model knows: refusal.organism.facts
KNOWN = {benchmark.name: benchmark for benchmark in (*PAPER, *ORGANISM)}
FOLDERS = (
    "mmlu/default",
    "hellaswag",
    "arc",
    "winogrande",
    "gsm8k",
    "truthfulqa",
)  # of the harness, with the known ones
# The harness's own task of this name estimates the accuracy on all of HellaSwag with a package that is on no index.
# Here it is the mean over the same documents.
_TINY = {"group": "tinyHellaswag", "task": [{"task": "hellaswag", "dataset_path": "tinyBenchmarks/tinyHellaswag"}]}


def benchmarks(tasks: Sequence[str | Benchmark]) -> tuple[Benchmark, ...]:
    """Return what names stand for: the paper's settings for the paper's tasks, else the harness's.

    Digits behind the last colon are the number of examples: "mmlu:5". Raises BadInput for an empty list, and for the
    same task twice.
    """
    found = tuple(_named(task) if isinstance(task, str) else task for task in tasks)
    names = [benchmark.name for benchmark in found]
    if not found or len(set(names)) < len(names):
        raise BadInput(f"{names} is no list of different tasks. Give each once, or none for the default.")
    return found


def _named(name: str) -> Benchmark:
    bare, _, shots = name.rpartition(":")
    bare = bare if shots.isdigit() else name
    known = KNOWN.get(bare, Benchmark(bare))
    return known if bare == name else replace(known, shots=int(shots))


@cache
def index(*, every: bool) -> Any:
    """Return the harness's index of tasks: of every one, which takes seconds to read, or of the known ones."""
    from lm_eval import tasks

    home = Path(str(tasks.__file__)).parent
    folders: list[str | Path] = [] if every else [home / folder for folder in FOLDERS]
    return tasks.TaskManager(include_defaults=every, include_path=folders)


def load(benchmark: Benchmark) -> dict[str, Any]:
    """Have the harness make the tasks of a benchmark, for which it gets their data sets.

    Raises BadInput for an unknown name, and Unavailable for a data set that cannot be had.
    """
    from refusal.organism import facts

    name, manager = benchmark.name, index(every=benchmark.name not in KNOWN)
    try:
        loaded = manager.load([{BUNDLED: facts.task(), "tinyHellaswag": _TINY}.get(name, name)])
    except KeyError as error:
        near = did_you_mean(name, manager.all_tasks, most=3)
        raise BadInput(
            f"lm-evaluation-harness has no task '{name}'. {near}`lm-eval ls tasks` lists them; a YAML file is one, too."
        ) from error
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"The task '{name}' needs the Python package {error.name}, which is not installed. Install it, too."
        ) from error
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"The data set of the task '{name}' is not here and could not be had: {str(error).splitlines()[0]} Run the "
            "same command with --limit 1 where there is a network, and bring its folder $HF_HOME here."
        ) from error
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot") or 0
        task.set_config("num_fewshot", own if benchmark.shots is None else benchmark.shots)
        task.set_fewshot_seed(SHOTS_SEED)
    return loaded
