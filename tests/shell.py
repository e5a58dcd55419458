"""Commands as a user types them."""

import json
from typing import Any

from refusal.cli import main


def printed(capsys, *words: str) -> tuple[Any, int]:
    """Run a command with --json, and return what it prints (None for an error of ours) and its exit code."""
    code = 0
    try:
        main([*words, "--json"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr().out
    return json.loads(out) if out else None, code
