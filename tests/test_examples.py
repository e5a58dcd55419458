"""The twenty lines of the README run as they stand there and show the phenomenon; notebooks run from top to bottom."""

import ast
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import forked
import refusal
from refusal.display import Shown

ROOT = Path(__file__).parents[1]
CODE = (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SIZES = {"n_train": 24, "n_val": 6, "n_test": 3, "max_new_tokens": 5}  # in the place of a notebook's own


# The lines as they stand, on as many prompts as the paper finds and chooses with: all of them take most of a minute.
FEWER = """
import dataclasses, refusal
load, sizes = refusal.load_prompts, {"train": 128, "val": 32, "test": 50}
def fewer(name):
    return dataclasses.replace(load(name), **{part: getattr(load(name), part)[:n] for part, n in sizes.items()})
refusal.load_prompts = fewer
"""


def test_the_quickstart_of_the_readme_is_the_example():
    assert CODE.partition('"""\n\n')[2].rstrip() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_quickstart_shows_the_phenomenon(tmp_path, monkeypatch):
    script = tmp_path / "quickstart.py"
    script.write_text(FEWER + CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = forked.run([sys.executable, script], check=True)
    refused = [tuple(map(int, pair)) for pair in re.findall(r"^(\d+)/(\d+) = ", done.stdout, re.MULTILINE)]
    (ablated, n), (added, _), (edited, _) = refused
    assert ablated <= 0.03 * n  # refusals of harmful prompts
    assert edited == ablated
    assert added >= 0.9 * n  # refusals of harmless prompts
    assert (tmp_path / "direction.safetensors").exists()


def code_cells(path: Path) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line if that is an expression, as a notebook shows it."""
    body = ast.parse(source).body
    last = ast.Expression(body.pop().value) if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(last, "cell", "eval"), names) if last else None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, capsys, monkeypatch):
    quick = partial(refusal.select_direction, how="fast")  # the same choice, for a third of the time
    monkeypatch.setattr(refusal, "select_direction", quick, raising=False)
    if "refusal.mechanism" in path.read_text(encoding="utf-8"):
        pytest.importorskip("refusal.mechanism")
        pytest.importorskip("refusal.report")
    first, *cells = code_cells(path)
    names: dict[str, Any] = {}
    run_cell(first["source"], names)
    sizes = {
        name: SIZES[name] for name in names if not name.startswith("__")
    }  # the first cell holds sizes and nothing else
    assert len(sizes) >= 2
    names |= sizes
    for cell in cells:
        shown = run_cell(cell["source"], names)
        if shown is not None:
            rich = [output["data"].get("text/html") for output in cell["outputs"] if "data" in output]
            assert bool(rich[0]) == hasattr(shown, "_repr_html_"), cell["source"]
            assert not isinstance(shown, Shown) or shown.html
        elif any(output["output_type"] == "stream" for output in cell["outputs"]):
            assert capsys.readouterr().out, cell["source"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_as_one_run_left_it(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    kinds = {(output["output_type"], output.get("name")) for cell in cells for output in cell["outputs"]}
    assert kinds <= {("execute_result", None), ("stream", "stdout")}
    assert path.stat().st_size < 200_000
