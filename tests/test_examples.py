"""The twenty lines of the README run as they stand there and show the phenomenon."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")


def test_the_quickstart_of_the_readme_is_the_example():
    assert CODE.partition('"""\n\n')[2].rstrip() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_quickstart_shows_the_phenomenon(tmp_path):
    script = tmp_path / "quickstart.py"
    script.write_text(CODE, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    refused = [tuple(map(int, pair)) for pair in re.findall(r"^(\d+)/(\d+) = ", done.stdout, re.MULTILINE)]
    (ablated, n), (added, _), (edited, _) = refused
    assert ablated <= 0.03 * n  # refusals of harmful prompts
    assert edited == ablated
    assert added >= 0.9 * n  # refusals of harmless prompts
    assert (tmp_path / "direction.safetensors").exists()
