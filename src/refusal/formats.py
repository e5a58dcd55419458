"""How numbers, shares, intervals and tokens are written for a reader: one spelling of each, wherever it stands."""

from collections.abc import Callable, Mapping, Sequence
from math import floor, log10
from typing import Any

Number = float | int
Row = Mapping[str, Any]


def minus(text: str) -> str:
    """Return a number's text with a true minus sign; a dash alone, where there is no number, as a true dash."""
    return "–" if text == "-" else text.replace("-", "−")


def number(value: Number) -> str:
    """Return a number in at most four digits, with a true minus sign."""
    return minus(f"{value:.4g}")


def signed(value: Number, form: str = "+.3f") -> str:
    """Return a number in a format of Python's, with a true minus sign; what rounds to 0 has no sign."""
    text = f"{value:{form}}"
    return minus(text.lstrip("+-") if float(text) == 0 else text)


def tidy(value: Number) -> str:
    """Return a number of any size with two digits that count, and never in powers of ten: `0.18`, `0.00064`."""
    decimals = 1 if not value else min(6, max(0, 1 - floor(log10(abs(value)))))
    return signed(value, f".{decimals}f")


def spread_text(mean: Number, sd: Number) -> str:
    """Return a mean and its standard deviation with as many decimals as the latter has two digits for: `276 ± 30`."""
    if not sd:
        return f"{number(mean)} ± 0"
    decimals = min(6, max(0, 1 - floor(log10(abs(sd)))))
    return f"{signed(mean, f'.{decimals}f')} ± {sd:.{decimals}f}"


def coefficient_text(value: Number) -> str:
    """Return the coefficient of an addition: `c = −1`."""
    return f"c = {number(value)}"


def percent(share: Number | None) -> str:
    """Return a share as a percentage with one decimal; a dash for the rate of nothing (null)."""
    return "–" if share is None else f"{signed(100 * share, '.1f')}\N{NO-BREAK SPACE}%"


def whole_percent(share: Number) -> str:
    """Return a share as a percentage without decimals, as a scale has it."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def brief(share: Number | None) -> str:
    """Return a share in per cent, with one decimal only where it says something: `3 %`, `98.5 %`."""
    return "–" if share is None else f"{_shortest(share)}\N{NO-BREAK SPACE}%"


def points(share: Number | None) -> str:
    """Return a difference of shares in percentage points, with its sign; a dash where nothing was compared (null)."""
    return "–" if share is None else signed(100 * share, "+.1f")


def interval(row: Row, text: Callable[[Any], str] = percent) -> str:
    """Return a record's interval in brackets, each end as `text` writes it: `[1.0 %, 8.5 %]`."""
    return f"[{text(row['low'])}, {text(row['high'])}]"


def ends(row: Row) -> str:
    """Return the interval of a rate in brackets, briefly and in per cent: `[1, 6]`."""
    return interval(row, _shortest)


def share_text(row: Row) -> str:
    """Return the share of a rate record with its interval: `3.0 % [1.0 %, 8.5 %]`."""
    return f"{percent(row['rate'])} {interval(row)}"


def rate_text(row: Row, word: str) -> str:
    """Return a rate record, which counts a word, as text: `3/100 = 3.0 % [1.0 %, 8.5 %]`."""
    return f"{row[word]}/{row['n']} = {share_text(row)}"


def span(row: Row, text: Callable[[Any], str]) -> str:
    """Return both ends of an interval as a column of their own has them; nothing where there is none (null)."""
    return "" if row.get("low") is None else f"{text(row['low'])} to {text(row['high'])}"


def extent(row: Row, text: Callable[[Any], str]) -> str:
    """Return the least and the greatest of several draws, once where they are the same."""
    low, high = text(row["min"]), text(row["max"])
    return low if low == high else f"{low} to {high}"


def visible(token: str) -> str:
    """Return a token's text with its white space and control characters made visible."""
    return "".join("␣" if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in token)


def position_label(position: int, tokens: Sequence[str]) -> str:
    """Return a post-instruction position with its token (`−1 \\n`), or alone when no tokens are known."""
    return f"{number(position)} {visible(tokens[position])}" if tokens else number(position)


def shortened(text: str, longest: int) -> str:
    """Return text that is at most so many characters long, cut with an ellipsis where it was longer."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _shortest(share: Number) -> str:
    text = f"{100 * share:.1f}".removesuffix(".0")
    exact = share in (0.0, 1.0)
    return text if exact or text not in ("0", "100") else ("< 0.1" if text == "0" else "> 99.9")
