"""What objects look like in a notebook: a few lines of HTML and SVG, every text escaped, in a light or dark notebook.

Ink is the notebook's own, and the colours of marks can be seen on white and on black, because no notebook says which
of the two it is. Everything has a plain form, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol, runtime_checkable

from refusal import svg
from refusal.formats import interval, minus, number, percent, whole_percent
from refusal.hidden import spelled

# An output can be shown alone, so each brings its style; `svg.MARKS` names its variables.
_STYLE = f"""<style>
.refusal-shown {{ --ink: currentColor; --paper: transparent; --shade: #8a919a33;
  --muted: color-mix(in srgb, currentColor 70%, transparent); --grid: color-mix(in srgb, currentColor 18%, transparent);
  --c0: #2b8cc4; --c1: #d9661f; --c2: #1f9d78; --c3: #c0609a; --c4: #a8841a; --c5: #4a97c6; --c6: #8468bd;
  --c7: #868e98; font: 13px/1.45 system-ui, sans-serif; }}
.refusal-shown .part {{ overflow-x: auto; margin: .4em 0; }}
.refusal-shown .figures {{ display: flex; flex-wrap: wrap; gap: 8px; }}
.refusal-shown .figures > svg {{ flex: 1 1 340px; max-width: 460px; }}
.refusal-shown table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0; }}
.refusal-shown th, .refusal-shown td {{ text-align: left; vertical-align: top; padding: 2px 10px 2px 0; border: 0;
  white-space: pre-wrap; background: none; }}
.refusal-shown thead th {{ color: var(--muted); font-weight: 500; border-bottom: 1px solid var(--grid); }}
.refusal-shown caption {{ caption-side: top; text-align: left; color: var(--muted); padding: 0; }}
.refusal-shown .cells td, .refusal-shown .cells thead th {{ text-align: right; padding: 2px 6px; white-space: nowrap; }}
.refusal-shown .beside td {{ min-width: 11em; max-width: 26em; overflow-wrap: anywhere;
  border-bottom: 1px solid var(--grid); }}
.refusal-shown ul.key {{ list-style: none; display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 0; padding: 0; }}
.refusal-shown ul.key svg {{ vertical-align: middle; }}
{svg.MARKS.replace("svg.figure", ".refusal-shown svg.figure")}</style>"""


@runtime_checkable
class Answered(Protocol):
    """A prompt with its answer, such as a `Completion`."""

    @property
    def prompt(self) -> str:
        """The instruction."""
        ...

    @property
    def response(self) -> str:
        """The answer."""
        ...


@dataclass(frozen=True, repr=False)
class Shown:
    """Something to look at: rich in a notebook, plain elsewhere."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def line(name: str, facts: Mapping[str, object]) -> str:
    """Return the plain form of one object: `Direction(layer=7, position=-4)`."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in facts.items())})"


def card(title: str, facts: Mapping[str, object], *parts: str) -> str:
    """Return the HTML of one object: its name, what is known of it, and tables or figures that are HTML already."""
    told = " · ".join(f"{escape(name.replace('_', ' '))} {escape(_text(value))}" for name, value in facts.items())
    inner = "".join(f'<div class="part">{part}</div>' for part in parts if part)
    # Model text is no formula, whatever dollars stand in it.
    classes = "refusal-shown mathjax_ignore tex2jax_ignore"
    return f'{_STYLE}<div class="{classes}"><strong>{escape(title)}</strong> {told}{inner}</div>'


def figures(*drawn: str) -> str:
    """Put SVG figures beside each other where there is room."""
    return f'<div class="figures">{"".join(drawn)}</div>'


def table(rows: Sequence[Mapping[str, object]], *, kind: str = "") -> str:
    """Return rows as an HTML table under the names of the first."""
    head = "".join(f"<th>{escape(name)}</th>" for name in (rows[0] if rows else ()))
    body = "".join(f"<tr>{''.join(f'<td>{escape(_text(value))}</td>' for value in row.values())}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def cells(title: str, names: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """Return a table of numbers from 0 up, each cell the more coloured the larger its number is."""
    most = max((value for row in values for value in row if value == value), default=0.0) or 1.0
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *columns))
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(_cell(value, value / most) for value in row)}</tr>"
        for name, row in zip(names, values, strict=True)
    )
    caption = f"<caption>{escape(title)}</caption>"
    return f'<table class="cells">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def folded(summary: str, part: str) -> str:
    """Return HTML that a reader has to open."""
    return f"<details><summary>{escape(summary)}</summary>{part}</details>"


def bar(rate: float, low: float, high: float) -> str:
    """Draw a rate with its interval on a scale from 0 to 1."""
    axes = svg.Axes((0, 1), (0, 1), width=260, height=34, left=8, right=8, top=2, bottom=16)
    share = 0.0 if rate != rate else rate
    told = f"95 % interval {interval({'low': low, 'high': high})}"
    marks = [
        *(axes.vertical(x, "grid") for x in (0, 0.5, 1)),
        *(axes.text((x, 0), whole_percent(x), dy=13, anchor=a) for x, a in ((0, "start"), (0.5, "middle"), (1, "end"))),
        axes.cell((0, 0.08), (share, 0.92), percent(share), 'fill="var(--c0)" rx="2"'),
        axes.segment((low, 0.5), (high, 0.5), "whisker", told),
    ]
    return (
        f'<svg class="figure" viewBox="0 0 {axes.width} {axes.height}" width="{axes.width}" height="{axes.height}" '
        f'role="img" aria-label="{percent(share)}, {told}">{"".join(marks)}</svg>'
    )


def side_by_side(answers: Mapping[str, Sequence[Answered]], *, n: int = 8) -> Shown:
    """Lay answers to the same prompts beside each other, under the names given: the first `n` prompts.

    `side_by_side({"plain": plain, "ablated": ablated})`, each a list as `generate` returns it. Answers are matched by
    their prompts; one that is missing is left empty. In a notebook this is a table; `print` gives plain text.
    """
    by_prompt = {name: {one.prompt: one.response for one in reversed(listed)} for name, listed in answers.items()}
    prompts = list(dict.fromkeys(one.prompt for listed in answers.values() for one in listed))
    rows = [
        {"prompt": prompt, **{name: found.get(prompt, "") for name, found in by_prompt.items()}}
        for prompt in prompts[:n]
    ]
    facts = {"of": f"{len(prompts)} prompts"} if len(prompts) > n else {}
    html = card(f"{len(rows)} prompts", facts, table(rows, kind="beside"))
    return Shown(html, "\n\n".join("\n".join(f"{name}: {spelled(text)}" for name, text in row.items()) for row in rows))


def _cell(value: float, share: float) -> str:
    paint = f"background: color-mix(in srgb, var(--c0) {60 * share:.0f}%, transparent)" if share == share else ""
    return f'<td style="{paint}">{number(value)}</td>'


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if value != value else number(value)
    return "–" if value is None else minus(str(value)) if isinstance(value, int) else spelled(str(value))
