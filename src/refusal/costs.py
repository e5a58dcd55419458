"""What an intervention costs: cross-entropy, KL on answers to harmless prompts, benchmarks; each with a control."""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec

from refusal.capabilities import (
    ORGANISM,
    PAPER,
    Benchmark,
    capabilities_record,
    fetch_benchmarks,
    measure_capabilities,
    merged_capabilities,
)
from refusal.conditions import Condition, cost_conditions
from refusal.config import BUNDLED
from refusal.corpora import DOCUMENTS, Corpus, load_pairs, load_texts
from refusal.generation import greedy_tokens
from refusal.judges.read import read_completions
from refusal.losses import cross_entropy
from refusal.losses import divergences as measure_divergences
from refusal.records import value_hash, write_json, write_rows
from refusal.study import Study
from refusal.vectors import Vectors, inputs_of

BUNDLED_DOCUMENTS = 128


def fetch(study: Study) -> dict[str, Corpus]:
    """Load the texts and pairs that are asked for, and get the benchmarks' data: what is missing must not show late."""
    n, reason = _documents(study)
    chosen = {"texts": _corpus(study, study.config.texts), "pairs": _corpus(study, study.config.pairs)}
    tasks, why = _tasks(study)
    reasons = {"n_documents": reason, **{kind: why for kind, (_, why) in chosen.items()}, "capabilities": why}
    study.note_choices(reasons)
    if tasks not in ((), ORGANISM):
        fetch_benchmarks(tasks)
    load = {"texts": load_texts, "pairs": load_pairs}
    return {kind: load[kind](name, n=n) for kind, (name, _) in chosen.items() if name}


def losses(study: Study, vectors: Vectors, fetched: Mapping[str, Corpus]) -> None:
    """Measure the cross-entropy under the paper's conditions and their controls (section G.3).

    On the corpora that were fetched, and on the model's own answers to harmless prompts.
    """
    answers = read_completions(study.run.folder / "completions" / "harmless.none.jsonl")
    pairs = tuple((answer.prompt, answer.response) for answer in answers)
    own = Corpus("completions", pairs, "the model's own answers to harmless test prompts")
    corpora, listed = {**fetched, "completions": own}, cost_conditions(randoms=study.config.randoms)
    study.run.note(corpora={name: corpus.record() for name, corpus in corpora.items()})
    study.stages.enter("losses", len(corpora) * len(listed))
    for name, corpus in corpora.items():
        for condition in listed:
            _loss(study, vectors, condition, name, corpus)


def _documents(study: Study) -> tuple[int, str]:
    """Return how many texts and pairs are measured on, and why as many."""
    if study.config.n_documents:
        return study.config.n_documents, f"{study.config.n_documents}: given"
    if study.config.model == BUNDLED:
        return BUNDLED_DOCUMENTS, f"{BUNDLED_DOCUMENTS}: its language repeats itself, and a demo has to be short"
    return DOCUMENTS, f"{DOCUMENTS}: the paper's"


def _corpus(study: Study, asked: str) -> tuple[str, str]:
    """Return the name of texts or pairs, and why these."""
    if asked != "auto":
        return asked, f"{asked}: given" if asked else "none: given"
    if study.config.model == BUNDLED:
        return BUNDLED, f"{BUNDLED}: the bundled model knows no other language"
    return "", "none: the paper's are large downloads, and have to be asked for"


def _loss(study: Study, vectors: Vectors, condition: Condition, name: str, corpus: Corpus) -> None:
    path = study.run.folder / "losses" / f"{name}.{condition.name}.jsonl"

    def body() -> None:
        with vectors.around(study.model, condition, coefficient=study.config.harmful_coefficient):
            loss = cross_entropy(study.model, corpus.documents)
        write_rows(path, ({"sum": s, "tokens": n} for s, n in zip(loss.sums, loss.tokens, strict=True)))

    study.step(f"loss {path.stem}", [*inputs_of(study, condition), value_hash(corpus.documents)], [path], body)


def divergences(study: Study, vectors: Vectors) -> None:
    """Measure KL to the untouched model on harmless test prompts: at the first token, and along its whole answers."""
    _, *listed = cost_conditions(randoms=study.config.randoms)
    paths = [study.run.folder / "losses" / f"kl.{condition.name}.jsonl" for condition in listed]
    prompts, coefficient = study.sample.harmless_test, study.config.harmful_coefficient
    unders = [partial(vectors.around, study.model, condition, coefficient=coefficient) for condition in listed]

    def body() -> None:
        answers = greedy_tokens(study.model, prompts, max_new_tokens=study.max_new_tokens)
        with study.bar("KL to the untouched model", len(prompts)) as advance:
            found = measure_divergences(study.model, prompts, unders=unders, answers=answers, report=advance)
        for path, one in zip(paths, found, strict=True):
            rows = zip(one.first.sums, one.whole.sums, one.whole.tokens, strict=True)
            write_rows(path, ({"first": first, "sum": s, "tokens": n} for first, s, n in rows))

    study.stages.enter("KL")
    study.step("KL", [inputs_of(study, condition) for condition in listed], paths, body)


def capabilities(study: Study, vectors: Vectors) -> None:
    """Run the capability benchmarks under the conditions of the losses, each paired with no intervention."""
    tasks, _ = _tasks(study)
    if not tasks:
        return
    folder, listed = study.run.folder, cost_conditions(randoms=study.config.randoms)
    study.stages.enter("capabilities", len(listed))
    for condition in listed:
        _benchmarks(study, vectors, condition, tasks)
    write_json(folder / "capabilities.json", merged_capabilities(folder / "capabilities"))


def _benchmarks(study: Study, vectors: Vectors, condition: Condition, tasks: Sequence[str | Benchmark]) -> None:
    path = study.run.folder / "capabilities" / f"{condition.name}.json"

    def body() -> None:
        under = partial(vectors.around, study.model, condition, coefficient=study.config.harmful_coefficient)
        found = measure_capabilities(study.model, tasks, under=under, limit=study.config.task_limit, bars=False)
        write_json(path, capabilities_record({condition.name: found}))

    study.step(f"capabilities {condition.name}", inputs_of(study, condition), [path], body)


def _tasks(study: Study) -> tuple[Sequence[str | Benchmark], str]:
    """Return the benchmarks that a run asks for, and why these."""
    asked, own = study.config.tasks, study.config.model == BUNDLED
    if asked == ("paper",):
        return PAPER, "those of the paper's Table 3"
    if asked != ("auto",):
        return asked, "given" if asked else "none: given"
    if not own:
        return (), "none: --tasks names benchmarks to measure"
    if find_spec("lm_eval") is None:
        return (), "none: lm-evaluation-harness is not installed (pip install 'refusal[capabilities]')"
    return ORGANISM, "the bundled model's own"
