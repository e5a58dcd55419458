"""Values → escaped markup: every part of the page is a macro of `parts.html`."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from refusal.hidden import spelled

MOST = 20_000  # characters of one text that are shown


def render(part: str, values: Mapping[str, Any]) -> str:
    """Return one part of the page as markup; all text in it is escaped."""
    return str(getattr(_parts(), part)(**values)).strip()


def shown(text: str) -> str:
    """Return text as it is safe to look at: what is hidden spelled out, cut where it is very long."""
    return spelled(f"{text[:MOST]}\n… {len(text) - MOST:,} more characters" if len(text) > MOST else text)


@lru_cache
def _parts() -> Any:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["shown"] = shown
    return templates.get_template("parts.html").module
