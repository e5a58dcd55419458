"""Running the harness on a chat model's own network."""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from copy import deepcopy
from importlib.metadata import version
from io import StringIO
from typing import Any

import torch

from refusal import engine
from refusal.capabilities.results import Capabilities, Result
from refusal.capabilities.tasks import ORGANISM, PAPER, Benchmark, benchmarks, load
from refusal.config import BUNDLED
from refusal.errors import BadInput, BadSetting, Unavailable
from refusal.losses import Under
from refusal.model import ChatModel

INSTALL = "Capability benchmarks need lm-evaluation-harness: pip install 'refusal[capabilities]'"
TOKENS = 100  # of one document or example, for how many rows go through the network together
DIGITS = 12  # of the hash that tells one prompt from another
PREFERRED = ("acc_norm", "acc", "exact_match")  # of a task's metrics, where none is named


def measure_capabilities(
    model: ChatModel,
    tasks: Sequence[str | Benchmark] | None = None,
    *,
    under: Under | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    bars: bool = True,
) -> Capabilities:
    """Run benchmarks of lm-evaluation-harness on a model as it stands, by default those of the paper's Table 3.

    Interventions that are active around the call act, and so does `under`: `lambda: ablate(model, direction)`. The
    default for the bundled model is a task over its own language. A name is a task or group of the harness, such as
    "arc_challenge" or, with five examples, "mmlu:5", or the path of a task in YAML; the paper's have its settings.
    `limit` takes the first documents of every task. `batch_size` is by default what suits the device, and is halved
    where memory does not suffice. `bars` shows the harness's progress on stderr.
    Raises Unavailable without the harness or a data set, and BadInput for an unknown task.
    """
    chosen = benchmarks(tasks if tasks is not None else ORGANISM if model.name == BUNDLED else PAPER)
    if limit is not None and limit < 1:
        raise BadSetting(f"limit is {limit}: give at least 1 document, or none for all of them.")
    loaded = _load(chosen, bars)  # all before the first run, because one may be missing
    with _talk(bars):
        results = []
        for benchmark, tasks_of in zip(chosen, loaded, strict=True):
            with under() if under else nullcontext():
                results.append(_run(model, benchmark, tasks_of, limit, batch_size or _rows(model, benchmark)))
    return Capabilities(tuple(results), limit, version("lm_eval"))


def fetch_benchmarks(tasks: Sequence[str | Benchmark]) -> None:
    """Have the harness get the data sets of benchmarks. Raises as `measure_capabilities`."""
    _load(benchmarks(tasks), bars=False)


def _load(chosen: Sequence[Benchmark], bars: bool) -> list[dict[str, Any]]:
    _harness()
    with _talk(bars), _warnings():  # which speak of settings
        return [load(benchmark) for benchmark in chosen]


def _harness() -> Any:
    try:
        import lm_eval
        import lm_eval.evaluator
        import lm_eval.models.huggingface
    except ImportError as error:
        raise Unavailable(INSTALL) from error
    return lm_eval


def _run(model: ChatModel, benchmark: Benchmark, loaded: dict[str, Any], limit: int | None, rows: int) -> Result:
    """Run one benchmark, with fewer rows at once where memory does not suffice."""
    how: Any = {"apply_chat_template": benchmark.chat, "fewshot_as_multiturn": benchmark.chat}
    how |= {"system_instruction": model.system if benchmark.chat else None}
    while True:
        network = _wrap(model, rows)
        try:
            with _warnings() as notes:
                found = _harness().evaluator.evaluate(network, loaded, limit, bootstrap_iters=0, **how)
            break
        except torch.OutOfMemoryError as error:
            if rows == 1:
                raise Unavailable(
                    f"A single document of '{benchmark.name}' does not fit in memory. Use a larger device, a smaller "
                    "dtype, or fewer examples."
                ) from error
            rows //= 2
    return _read(benchmark, loaded["tasks"], found["samples"], tuple(notes))


def _read(benchmark: Benchmark, tasks: dict[str, Any], samples: dict[str, Any], notes: tuple[str, ...]) -> Result:
    """Take one number for every document from the harness's samples, those of a group task by task."""
    task = next(iter(tasks.values()))
    every = [sample for name in tasks for sample in samples[name]]
    metric, reading = benchmark.metric or _metric(task), benchmark.filter or every[0]["filter"]
    kept = [sample for sample in every if sample["filter"] == reading]
    if not kept or not all(isinstance(sample.get(metric), int | float) for sample in kept):
        raise BadInput(
            f"The task '{benchmark.name}' gives no number '{metric}' for every document (filter '{reading}'). Name a "
            f"Benchmark with one of its metrics: {', '.join(every[0]['metrics'])}."
        )
    values = tuple(float(sample[metric]) for sample in kept)
    documents = tuple(sample["prompt_hash"][:DIGITS] for sample in kept)
    return Result(benchmark.name, metric, task.get_config("num_fewshot"), benchmark.chat, values, documents, notes)


def _metric(task: Any) -> str:
    own = list(task.higher_is_better())
    return next((name for name in PREFERRED if name in own), own[0])


def _wrap(model: ChatModel, rows: int) -> Any:
    """Give the network to the harness, which changes a tokenizer that has no padding token."""
    tokenizer = deepcopy(model.tokenizer) if model.tokenizer.pad_token_id is None else model.tokenizer
    arguments = {"batch_size": rows, "chat_template_args": dict(model.template_arguments)}
    with _warnings():  # that the network is in memory already
        return _harness().models.huggingface.HFLM(pretrained=model.network, tokenizer=tokenizer, **arguments)


def _rows(model: ChatModel, benchmark: Benchmark) -> int:
    """Return how many prompts go through the network together; one where the family cannot be padded."""
    if not model.architecture.padding:
        return 1
    budget = engine.budget_of(model, every_logit=True).tokens
    return max(1, budget // (TOKENS * ((benchmark.shots or 0) + 1)))


@contextmanager
def _talk(bars: bool) -> Iterator[None]:
    """Keep what the harness prints off stdout, and its bars off stderr if asked."""
    with redirect_stdout(sys.stderr), nullcontext() if bars else redirect_stderr(StringIO()):
        yield


@contextmanager
def _warnings() -> Iterator[Iterable[str]]:
    """Take the harness's warnings, each once, instead of letting them be printed."""
    logger, handler, heard = logging.getLogger("lm_eval"), logging.Handler(logging.WARNING), dict[str, None]()
    handler.emit = lambda record: heard.update({record.getMessage(): None})
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield heard
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
