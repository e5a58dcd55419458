"""What commands print: data on stdout, as JSON or laid out for a person, and talk on stderr."""

import json as jsonlib
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from refusal.hidden import spelled

NARROWEST = 33  # columns of a terminal, of one of several texts


class Titled(NamedTuple):
    """A text under its title, with a remark on it."""

    title: str
    text: str
    remark: str = ""


def show(value: Any, json: bool, human: Callable[[], Any]) -> None:
    """Print a value as JSON, or what `human` lays out: a string as it is."""
    if json:
        from refusal.records import strict

        print(jsonlib.dumps(strict(value), allow_nan=False))
    elif isinstance(made := human(), str):
        print(made)
    else:
        from rich.console import Console

        # Into a file or a pipe there is no width to keep to; rows stay on one line.
        Console(width=None if sys.stdout.isatty() else 160).print(made)


def pairs(values: Mapping[str, Any]) -> Any:
    """Lay out names with their values."""
    return table([{"": name, "value": value} for name, value in values.items()], header=False)


def table(rows: Sequence[Mapping[str, Any]], *, header: bool = True) -> Any:
    """Lay out rows under the names of the first."""
    from rich.table import Table
    from rich.text import Text

    made = Table(*(rows[0] if rows else ()), show_header=header, box=None, pad_edge=False)
    for row in rows:
        # Text: model output is never markup. Folded: a word that is longer than its column is not cut.
        made.add_row(*(Text(spelled(str(value)), overflow="fold") for value in row.values()))
    return made


def columns(texts: Sequence[Titled]) -> Any:
    """Lay out texts beside each other under their titles; below each other where there is no room."""
    from rich import box
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    boxes = [
        Panel(Text(spelled(text), overflow="fold"), title=title, subtitle=remark or None, box=box.ROUNDED)
        for title, text, remark in texts
    ]
    beside = Console().width >= NARROWEST * len(boxes)
    made = Table.grid(*([""] * len(boxes) if beside else [""]), expand=True)
    for row in [boxes] if beside else [[each] for each in boxes]:
        made.add_row(*row)
    for column in made.columns:
        column.ratio = 1
    return made


def paragraphs(texts: Sequence[Titled]) -> str:
    """Lay out texts below each other, each behind its title and the remark on it."""
    heads = [f"{each.title} ({each.remark})" if each.remark else each.title for each in texts]
    return "\n\n".join(f"{head}\n{spelled(each.text)}" for head, each in zip(heads, texts, strict=True))


def watch(values: Iterable[Any], layout: Callable[[Any], Any]) -> None:
    """Show values in a terminal, each in the place of the one before; the last stays."""
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        for value in values:
            live.update(layout(value), refresh=True)


def paper_pages(pages: Sequence[Any]) -> Any:
    """Lay out tables of the paper: heading, numbers, notes."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for page in pages:
        parts += [Text(page.heading, style="bold")]
        for source, rows in page.blocks():
            parts += [*([Text(source)] if source else ()), table(rows)]
        yours = () if page.run is None else (f"Yours: {page.run}",)
        parts += [Text(note, style="dim") for note in (*page.notes, *yours)] + [Text()]
    return Group(*parts)


def tables(*several: Sequence[Mapping[str, Any]]) -> Any:
    """Lay out tables below each other; one without rows is left out."""
    from rich.console import Group

    return Group(*(table(rows) for rows in several if rows))


def next_commands(folder: Path) -> list[str]:
    """Return three commands worth trying on a finished run.

    The prompt is the first harmless one, to which the addition is what shows; of the bundled language, whose harm is
    make-believe, the first harmful one.
    """
    from refusal.records import Run, read_rows

    record = Run.read(folder).record
    name = "harmful" if record["grammar"] else "harmless"
    prompt = read_rows(folder / "completions" / f"{name}.none.jsonl")[0]["prompt"]
    row = record["config"]["architecture"]["value"]
    own = ["--architecture", str(row)] if row else []
    ask = ["ask", record["model"], prompt, "--direction", str(folder / "direction.safetensors"), *own]
    return [shlex.join(["refusal", *words]) for words in (["explore", str(folder)], ask, ["verify", str(folder)])]


def say(text: str) -> None:
    """Talk to whoever runs the command, beside its data."""
    print(text, file=sys.stderr)


def quiet() -> None:
    """Keep transformers' own progress bars out of the way of ours, and what the Hub's client says of every try."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
