"""Model text as the page shows it: escaped, with what cannot be seen made visible, and cut where it is too long."""

import re
import unicodedata
from dataclasses import dataclass

from markupsafe import Markup, escape

from refusal.hidden import hidden

FOLD = 220  # characters shown before "show all"
LISTED = 3  # characters of a run of invisible ones that are named
_ODD = re.compile(r"[^\x20-\x7e\n\t\xa1-\xac\xae-\u02ff\u0370-\u05ff\u3000-\ud7ff]+")  # where one may be


@dataclass(frozen=True)
class Text:
    """A text in two parts, the second of them folded; `left_out` counts the characters that the page leaves out."""

    first: Markup
    rest: Markup
    length: int
    left_out: int

    @property
    def size(self) -> int:
        """How many characters of the page it takes."""
        return len(self.first) + len(self.rest)


def visible(text: str) -> Markup:
    """Return text as markup in which nothing is hidden: control and bidirectional characters stand as their numbers."""
    parts, end = [], 0
    for found in _ODD.finditer(text):
        parts += [escape(text[end : found.start()]), *_odd(found[0])]
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def folded(text: str, *, limit: int) -> Text:
    """Return at most `limit` characters of a text, those behind the first few lines folded."""
    cut = FOLD
    if len(text) > FOLD:
        blank = max(text.rfind(" ", FOLD // 2, FOLD), text.rfind("\n", FOLD // 2, FOLD))
        cut = blank + 1 if blank > 0 else FOLD
    kept = text[:limit]
    return Text(visible(kept[:cut]), visible(kept[cut:]), len(text), len(text) - len(kept))


def _odd(run: str) -> list[Markup]:
    parts, odd = [], []

    def flush() -> None:
        parts.extend(map(_named, odd[:LISTED]))
        if len(odd) > LISTED:
            parts.append(Markup('<span class="odd">{} more</span>').format(len(odd) - LISTED))
        odd.clear()

    for character in run:
        if hidden(character):
            odd.append(character)
        else:
            flush()
            parts.append(escape(character))
    flush()
    return parts


def _named(character: str) -> Markup:
    name = unicodedata.name(character, "control character").lower()
    return Markup('<span class="odd" title="{}">U+{:04X}</span>').format(name, ord(character))
