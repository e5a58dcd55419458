"""A model's answers: completing prompts, judging them, and what an intervention costs."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from refusal.cli.options import (
    Ablated,
    Added,
    Coefficient,
    Json,
    Layer,
    Longest,
    Model,
    Output,
    PaperCoefficient,
    Row,
    Saved,
)
from refusal.cli.printing import Titled, columns, paragraphs, quiet, say, show, table, tables, watch
from refusal.errors import BadSetting
from refusal.formats import coefficient_text


def ask(
    model: Model,
    prompt: Annotated[Positional[str], arg(metavar="PROMPT", help="Instruction, without a chat template.")],
    direction: Saved,
    coefficient: Coefficient = 1.0,
    layer: Layer = None,
    max_new_tokens: Longest = None,
    architecture: Row = None,
    json: Json = False,
) -> None:
    """Print a model's answer to one prompt: plain, with the direction ablated, and with it added.

    In a terminal the three appear side by side, as they are written; below each other in one of under 99 columns. Each
    says whether the substring judge finds a refusal in it.

    Example: refusal ask organism "Explain how to brew a red jam." --direction direction.safetensors
    """
    from refusal import asking
    from refusal.architectures import read_architecture
    from refusal.model import load_model
    from refusal.weights import load_direction

    quiet()
    chat = load_model(model, architecture=read_architecture(architecture))
    how: Any = {"coefficient": coefficient, "layer": layer, "max_new_tokens": max_new_tokens}
    found = load_direction(direction)
    steps = asking.answers(chat, prompt, found, **how)
    where = f"added at layer {found.layer if layer is None else layer}, {coefficient_text(coefficient)}"
    titles = {"plain": "plain", "ablated": "ablated at every layer", "added": where}
    if sys.stdout.isatty() and not json:
        return watch(steps, lambda answers: columns(_titled(answers, titles)))
    *_, answers = steps
    show(answers, json, lambda: paragraphs(_titled(answers, titles)))


def _titled(answers: Mapping[str, str], titles: Mapping[str, str]) -> list[Titled]:
    from refusal.generation import Completion
    from refusal.judges import verdicts

    said = verdicts([Completion("", text) for text in answers.values()])
    remarks = [f"substring: {'' if each.word == 'refused' else 'not '}refused" for each in said]
    return [Titled(titles[name], answers[name], remark) for name, remark in zip(answers, remarks, strict=True)]


def generate(
    model: Model,
    prompts: Annotated[Positional[str], arg(metavar="PROMPTS", help="Prompt set, file or folder.")],
    output: Output,
    split: Annotated[Literal["train", "val", "test"], arg(help="Which of the set's prompts.")] = "test",
    ablate: Ablated = None,
    add: Added = None,
    coefficient: Coefficient = 1.0,
    max_new_tokens: Longest = None,
    system: Annotated[str | None, arg(help="System prompt.")] = None,
    server: Annotated[
        str | None, arg(help="OpenAI-compatible server that has the model; its API key: $REFUSAL_SERVER_KEY.")
    ] = None,
    server_model: Annotated[str | None, arg(help="The model's name there, where it is not MODEL.")] = None,
    timeout: Annotated[float, arg(help="Seconds that the server has for one answer.")] = 600.0,
    concurrency: Annotated[int, arg(help="Prompts that the server is asked at once.")] = 8,
    architecture: Row = None,
) -> None:
    """Complete every prompt of a set and write JSON lines, with a saved direction ablated or added if asked.

    The model runs here, or on a server (vLLM, SGLang, llama.cpp, transformers serve; an exported checkpoint holds the
    intervention there). A stopped command goes on where it was.

    Example: refusal generate organism harmful -o completions.jsonl --ablate direction.safetensors
    """
    from refusal import completing

    quiet()
    same: Any = {"split": split, "max_new_tokens": max_new_tokens, "system": system}
    if server is None:
        how: Any = {"ablated": ablate, "added": add, "coefficient": coefficient, "architecture": architecture}
        done = completing.complete_set(model, prompts, output, **how, **same)
    elif ablate or add or architecture:
        raise BadSetting(
            "--ablate, --add and --architecture are for a model that runs here: a server's cannot be changed. Export "
            "it with the direction, and serve that."
        )
    else:
        where = completing.Server(server, server_model or model, timeout=timeout, concurrency=concurrency)
        done = completing.complete_on_server(where, prompts, output, **same)
    say(f"{done} answers: {output}")


def judge(
    path: Annotated[Positional[Path], arg(metavar="RUN_OR_FILE", help="Run folder or file of completions.")],
    by: Annotated[
        tuple[str, ...],
        arg(help="Judges, each NAME or NAME,OPTION=VALUE: substring, llama-guard-2, … (docs/files.md)."),
    ] = ("substring",),
    agreement: Annotated[bool, arg(help="How far the judges agree (Cohen's kappa), and where not, instead.")] = False,
    json: Json = False,
) -> None:
    """Judge saved completions: a run folder, our JSON lines, or the official code's JSON; the model is not loaded.

    Example: refusal judge completions.jsonl --by substring grammar --agreement
    """
    from refusal import judging

    quiet()
    found = judging.judge_saved(path, by)
    if not agreement:
        rows = judging.rates_table(found)
        return show(judging.rates_record(found, folder=path.is_dir()), json, lambda: table(rows))
    if json:
        return show(judging.agreements_record(found), json, list)
    compared, differ, rest = judging.agreement_tables(found, path)
    show(compared, json, lambda: tables(compared, differ))
    say(rest or ("" if differ else "They never disagree."))


def losses(
    model: Model,
    texts: Annotated[str | None, arg(help='Plain texts: "pile", "organism", or a file (.jsonl:COLUMN).')] = None,
    pairs: Annotated[
        str | None, arg(help='Questions with answers: "alpaca", "organism", or a file such as saved completions.')
    ] = None,
    n: Annotated[int, arg(help="First documents of each; as many as in the paper.")] = 4096,
    ablate: Ablated = None,
    add: Added = None,
    coefficient: PaperCoefficient = -1.0,
    layer: Layer = None,
    architecture: Row = None,
    json: Json = False,
) -> None:
    """Measure cross-entropy on texts and on question-answer pairs, of a model as it is and with a saved direction.

    Nats a token, with 95 % intervals over documents; the change is over the same documents.

    Example: refusal losses organism --texts organism --pairs organism --n 200 --ablate direction.safetensors
    """
    from refusal import measuring

    quiet()
    how: Any = {"coefficient": coefficient, "layer": layer, "architecture": architecture}
    found = measuring.measure_losses(model, texts=texts, pairs=pairs, n=n, ablated=ablate, added=add, **how)
    show([each.record() for each in found], json, lambda: table([each.row() for each in found]))


def capabilities(
    model: Model,
    tasks: Annotated[
        tuple[str, ...], arg(help="The harness's names; with five examples mmlu:5; by default the paper's six.")
    ] = (),
    ablate: Ablated = None,
    add: Added = None,
    coefficient: PaperCoefficient = -1.0,
    layer: Layer = None,
    limit: Annotated[int | None, arg(help="First documents of every task only.")] = None,
    output: Annotated[Path | None, arg(aliases=["-o"], help="File for the record, with a value a document.")] = None,
    architecture: Row = None,
    json: Json = False,
) -> None:
    """Run MMLU, ARC and others of lm-evaluation-harness, on a model as it is and with a saved direction.

    The difference is paired document by document. The bundled model has a task over its own language.

    Example: refusal capabilities organism --ablate direction.safetensors
    """
    from refusal import measuring
    from refusal.capabilities import capabilities_table

    quiet()
    how: Any = {"coefficient": coefficient, "layer": layer, "limit": limit, "architecture": architecture}
    found = measuring.benchmark(model, tasks, ablated=ablate, added=add, output=output, **how)
    show(found, json, lambda: table(capabilities_table(found)))
