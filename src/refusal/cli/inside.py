"""What happens inside a model, under a suffix (paper section 5) and without one."""

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from refusal.cli.options import Json, Longest, Model, Output, Row, Saved
from refusal.cli.printing import pairs, quiet, show, table, tables


def mechanism_suffix(
    model: Model,
    direction: Saved,
    suffix: Annotated[
        tuple[str, ...], arg(help="Texts, or files with one a line; the bundled model has one of its own.")
    ] = (),
    harmful: Annotated[str, arg(help="Prompt set or file; those that the model refuses count.")] = "auto",
    harmless: Annotated[str, arg(help="Prompt set or file; those that the model answers count.")] = "auto",
    split: Annotated[Literal["train", "val", "test"], arg(help="Which of the sets' prompts.")] = "test",
    n: Annotated[int, arg(help="First prompts of each; as many as in the paper.")] = 128,
    heads: Annotated[int, arg(help="Heads whose attention is looked at: those that write most.")] = 8,
    seed: Annotated[int, arg(help="Of the random and permuted suffixes and the random direction.")] = 0,
    max_new_tokens: Longest = None,
    run: Annotated[Path | None, arg(help="Run folder to keep it in and show it in the report.")] = None,
    architecture: Row = None,
    json: Json = False,
) -> None:
    """Show what a suffix does: refusals, the direction at every layer, what heads write, and where they look.

    Beside it stand random suffixes of the same length, the same tokens in another order and in front, and a random
    direction (paper section 5).

    Example: refusal mechanism suffix organism --direction direction.safetensors
    """
    from refusal import explaining

    quiet()
    which: Any = {"harmful": harmful, "harmless": harmless, "split": split, "n": n, "run": run}
    how: Any = {"heads": heads, "seed": seed, "max_new_tokens": max_new_tokens, "architecture": architecture}
    found = explaining.study_suffixes(model, direction, suffix, **which, **how)
    show([one.record() for one in found], json, lambda: table([row for one in found for row in one.rows()]))


def mechanism_measure(
    model: Model,
    direction: Saved,
    names: Annotated[tuple[str, ...], arg(help="Analyses, such as projections or transfer; by default all.")] = (),
    harmful: Annotated[str, arg(help="Harmful prompt set or file.")] = "auto",
    harmless: Annotated[str, arg(help="Harmless prompt set or file.")] = "auto",
    n: Annotated[int, arg(help="First prompts of each split; as many as in the paper.")] = 128,
    suffix: Annotated[tuple[str, ...], arg(help="Suffixes to study; the bundled model has one of its own.")] = (),
    base: Annotated[str | None, arg(help="Base model that MODEL was made from; the bundled model has its own.")] = None,
    seed: Annotated[int, arg(help="Of random directions and suffixes.")] = 0,
    max_new_tokens: Longest = None,
    out: Annotated[Path | None, arg(help="Folder to keep the records in, one JSON file each.")] = None,
    architecture: Row = None,
    json: Json = False,
) -> None:
    """Measure what a saved direction is inside a model: the analyses that `refusal run` does, without a run.

    Example: refusal mechanism measure organism --direction direction.safetensors --names suffix --n 32
    """
    from refusal import explaining
    from refusal.mechanism import SuffixStudy
    from refusal.report.sections import SECTIONS, section_of

    quiet()
    which: Any = {"harmful": harmful, "harmless": harmless, "n": n, "suffixes": suffix, "base": base, "out": out}
    how: Any = {"seed": seed, "max_new_tokens": max_new_tokens, "architecture": architecture}
    found = explaining.measure_inside(names, model, direction, **which, **how)
    told = {name: one.record() for name, one in found.items()}

    def laid_out() -> Any:
        said = [(name, section_of(name, told[name], name).said) for name in told if name in SECTIONS]
        rows = [{"analysis": name, "what it says": sentence} for name, sentences in said for sentence in sentences]
        return tables(rows, *(one.rows() for one in found.values() if isinstance(one, SuffixStudy)))

    show(told, json, laid_out)


def mechanism_find_suffix(
    model: Model,
    output: Output = Path("suffix.json"),
    harmful: Annotated[str, arg(help="Prompt set or file; its train prompts are searched on.")] = "auto",
    harmless: Annotated[str, arg(help="Prompt set or file; with it refusal tokens are proposed.")] = "auto",
    n: Annotated[int, arg(help="First train prompts that one suffix has to work on.")] = 16,
    length: Annotated[int, arg(help="Tokens of the suffix; the paper's has 20.")] = 20,
    steps: Annotated[int, arg(help="Steps of greedy coordinate gradient.")] = 100,
    candidates: Annotated[int, arg(help="Suffixes tried in each step.")] = 64,
    top_k: Annotated[int, arg(help="Replacements of each token to draw from.")] = 64,
    seed: Annotated[int, arg(help="Of the random start and the draws.")] = 0,
    acknowledge: Annotated[bool, arg(help="This is a model that you may examine, and not the bundled one.")] = False,
    architecture: Row = None,
    json: Json = False,
) -> None:
    """Search for a suffix under which the bundled model no longer refuses (greedy coordinate gradient).

    The bundled model's harm is make-believe. Any other model needs --acknowledge: the search is for studying and
    defending models that you may examine.

    Example: refusal mechanism find-suffix organism --length 4 --steps 15 -o suffix.json
    """
    from refusal import explaining

    quiet()
    how: Any = {"candidates": candidates, "top_k": top_k, "seed": seed, "architecture": architecture}
    how |= {"n": n, "length": length, "steps": steps, "acknowledge": acknowledge}
    found = explaining.search_suffix(model, output, harmful=harmful, harmless=harmless, **how)
    show(
        found,
        json,
        lambda: pairs({"suffix": found["suffix"], "before": found["curve"][0], "after": found["curve"][-1]}),
    )
