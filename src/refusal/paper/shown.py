"""The paper's tables as rows of text: of all its models, of one, or of one beside a run of ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refusal.errors import BadInput, did_you_mean
from refusal.paper import SOURCES, Table, find_model, find_table, models, tables
from refusal.paper.beside import Line, Number, beside, find_runs, model_of

Rows = list[dict[str, str]]
FEW = 4  # columns that stand beside each other; more of them stand below each other
RECORDED = "The recorded"  # notes on the recorded runs, which are shown of the paper's own models alone
MARKS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"


@dataclass(frozen=True)
class Page:
    """One table, of all models or of one; with a run, its numbers and the differences."""

    table: Table
    model: str | None  # its name in the paper where it has one
    run: Path | None
    lines: tuple[Line, ...]

    @property
    def heading(self) -> str:
        """Number, title and unit."""
        unit = f", {self.table.unit}" if self.table.unit else ""
        return f"{self.table.name}. {self.table.title}{unit}"

    @property
    def notes(self) -> tuple[str, ...]:
        """The table's notes, and what the run did not measure as the paper did, by the marks of its numbers."""
        beside_others = self.model is not None and self.model not in models()
        own = (note for note in self.table.notes if not (beside_others and note.startswith(RECORDED)))
        missed = "; ".join(f"{_mark(i)} {what}" for i, what in enumerate(self._missed))
        return (*own, *([f"Yours is not compared where it was measured otherwise: {missed}."] if missed else ()))

    def marks(self, line: Line) -> str:
        """Return what stands behind a number of ours that was not measured as the paper's: it leads to a note."""
        found = sorted(self._missed.index(what) for what in line.missed)
        return " " + "".join(map(_mark, found)) if found else ""

    @property
    def _missed(self) -> list[str]:
        return list(dict.fromkeys(what for line in self.lines for what in line.missed))

    def blocks(self) -> list[tuple[str, Rows]]:
        """Return rows of text, each block under what it is of."""
        if self.model is not None:
            rows = [self._row(line) for line in self.lines]
            empty = {key for key in rows[0] if all(row[key] == "-" for row in rows)}
            return [("", [{key: text for key, text in row.items() if key not in empty} for row in rows])]
        return [(f"{source}: {self.table.where[source]}", self._whole(source)) for source in self.table.rows]

    def record(self) -> dict[str, Any]:
        """Return plain values: the table's numbers, and beside them those of the run."""
        whole = self.table.record()
        if self.model is None:
            return whole
        numbers = [number for number in whole["numbers"] if number["model"] == self.model]
        run = {} if self.run is None else {"run": str(self.run), "beside": [line.record() for line in self.lines]}
        return whole | {"numbers": numbers or whole["numbers"]} | run

    def _whole(self, source: Any) -> Rows:
        names = [name for name in self.table.models if name in self.table.rows[source]]
        cells = {
            (name, column): self.table.printed(name, column, source) or "-"
            for name in names
            for column in self.table.columns
        }
        if len(self.table.columns) <= FEW:
            return [{"": name} | {column: cells[name, column] for column in self.table.columns} for name in names]
        return [{"": column} | {name: cells[name, column] for name in names} for column in self.table.columns]

    def _row(self, line: Line) -> dict[str, str]:
        known = self.model in models()
        theirs = {source: line.theirs.get(source, "-") for source in self.table.rows} if known else {}
        others = {} if known else {"the paper's models": self._range(line.column)}
        row = {"": line.column, **theirs, **others}
        if self.run is not None:
            like = next((text for text in (*line.theirs.values(), *others.values()) if text != "-"), self._usual)
            row |= {"yours": _text(line.ours, like) + self.marks(line), "random direction": _text(line.control, like)}
            row |= {"difference": _text(line.difference, like, sign="+")} if known else {}
        return row

    @property
    def _usual(self) -> str:
        """A number of this table, for the decimals of one that the paper does not have."""
        return next(text for rows in self.table.rows.values() for row in rows.values() for text in row if text)

    def _range(self, column: str) -> str:
        """Return the least and the greatest number of a column, from the paper or else from recorded runs."""
        for source in SOURCES:
            found = [text for name in self.table.models if (text := self.table.printed(name, column, source))]
            if found:
                ends = sorted(found, key=float)
                return " to ".join(dict.fromkeys([ends[0], ends[-1]])) + f" ({len(found)})"
        return "-"


def pages(model: str = "", *, table: str = "", run: Path | None = None) -> list[Page]:
    """Return the tables that are asked for; of a model with runs under runs/, beside the newest of them.

    Raises BadInput for a table that is not there, and for a model that is neither in the paper nor in a run.
    """
    asked = [find_table(table)] if table else list(tables().values())
    name = model or ("" if run is None else model_of(run))
    if not name:
        return [Page(each, None, None, ()) for each in asked]
    known = find_model(name)
    run = run or next(iter(find_runs(name)), None)
    if known is None and run is None:
        raise BadInput(_unknown(name))
    name = known.name if known else name
    made = [Page(each, name, run, tuple(beside(each, run, model=name))) for each in asked]
    return [page for page in made if any(line.theirs or line.ours for line in page.lines)]


def _mark(index: int) -> str:
    return MARKS[index % len(MARKS)] * (index // len(MARKS) + 1)


def _unknown(name: str) -> str:
    return (
        f"'{name}' is not a model of the paper, and no run of it is under runs/. "
        f"{did_you_mean(name, models(), cutoff=0.4)}Give one of {', '.join(models())}, or a run with --run."
    )


def _text(number: Number | None, like: str, *, sign: str = "") -> str:
    """Write a number and its interval with as many decimals as the paper has."""
    if number is None:
        return "-"
    decimals = len(like.split(" ")[0].partition(".")[2])
    shown = f"{number.value:{sign}.{decimals}f}"
    if number.interval is not None:
        low, high = number.interval
        shown += f" [{low:{sign}.{decimals}f}, {high:{sign}.{decimals}f}]"
    return shown + (f" n={number.n}" if number.n else "")
