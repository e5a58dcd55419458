"""The house rules: floors, the cost of an import, public names, one spelling of the projection, documentation."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import FunctionType

import pytest

import refusal

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "refusal"
FLOORS = {
    **dict.fromkeys(["equations", "errors", "config", "records", "statistics", "per_token", "conditions"], 1),
    **dict.fromkeys(["hidden", "formats", "svg", "labels", "figures", "display"], 1),
    **dict.fromkeys(["paper", "rule", "results", "verdicts", "read_costs", "comparisons"], 1),
    **dict.fromkeys(["direction", "architectures", "loading", "model", "fingerprint", "prompts", "corpora"], 2),
    **dict.fromkeys(["interventions", "engine", "partial", "prefix"], 3),
    **dict.fromkeys(
        ["extraction", "refusal_tokens", "sweep", "race", "selection", "generation", "judges", "weights", "losses"], 4
    ),
    **dict.fromkeys(["ways", "completions", "served", "layerwise", "capabilities", "mechanism"], 4),
    **dict.fromkeys(["stages", "study", "vectors", "evaluation", "costs", "draws", "pipeline", "official"], 5),
    **dict.fromkeys(["findings", "report", "explorer"], 6),
    **dict.fromkeys(["completing", "asking", "measuring", "judging", "exports", "doctor", "checking"], 7),
    **dict.fromkeys(["explaining", "analyses", "cli", "__main__"], 7),
}
ORGANISM = "organism"  # beside the floors: it stands on floor 1, and anything may ask it for its language and weights
REMOVABLE = {"report", "explorer", "mechanism"}  # folders without which every other test stays green
MAX_FUNCTION = 60
MAX_FILE = 300
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
UNITS = sorted({path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"})


# --- floors -----------------------------------------------------------------------------------------------------


def imports(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield every module of the package that a file imports, and whether it does so inside a function."""
    for node in ast.iter_child_nodes(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write the full name"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        for parts in (name.split(".") for name in found):
            if parts[0] == "refusal" and len(parts) > 1 and parts[1] != "__version__":
                yield parts[1], lazy
        yield from imports(node, lazy or isinstance(node, ast.FunctionDef | ast.Lambda))


def wrong_imports(unit: str, tree: ast.AST) -> list[str]:
    """Return what a file of `unit` imports from where it may not, in words."""
    wrong = []
    for other, lazy in imports(tree):
        if other == unit:
            continue
        if other == ORGANISM:
            if FLOORS[unit] < 5 and not lazy:
                wrong.append(f"{unit} imports {other} at the top: below floor 5 that is done inside a function")
        elif other not in FLOORS:
            wrong.append(f"{unit} imports {other}, which is not a module: import a name from its own module")
        elif FLOORS[other] > FLOORS.get(unit, 1):
            wrong.append(
                f"{unit} (floor {FLOORS.get(unit, 1)}) imports {other} (floor {FLOORS[other]}): that is upward"
            )
    return wrong


def test_every_module_has_a_floor():
    assert [unit for unit in UNITS if unit not in FLOORS and unit != ORGANISM] == []
    assert set(FLOORS) - REMOVABLE <= set(UNITS)


@pytest.mark.parametrize("path", [path for path in FILES if path.parent != SOURCE or path.name != "__init__.py"])
def test_imports_point_down_the_floors(path):
    unit = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert wrong_imports(unit, TREES[path]) == []


def test_modules_of_one_floor_do_not_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for path, tree in TREES.items():
        unit = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if unit not in ("__init__", ORGANISM):
            graph.setdefault(unit, set()).update(other for other, _ in imports(tree) if other not in (unit, ORGANISM))
    list(TopologicalSorter(graph).static_order())
    with pytest.raises(CycleError):  # the check can fail
        list(TopologicalSorter({"selection": {"judges"}, "judges": {"selection"}}).static_order())


@pytest.mark.parametrize(
    ("unit", "code"),
    [
        ("equations", "from refusal.model import ChatModel"),
        ("engine", "def f():\n    from refusal import generation"),
        ("pipeline", "import refusal.report"),
        ("model", "from refusal.organism import checkpoint"),
        ("selection", "from refusal import Direction"),
        (ORGANISM, "from refusal.model import load_model"),
    ],
)
def test_the_floor_check_can_fail(unit, code):
    assert len(wrong_imports(unit, ast.parse(code))) == 1


# --- what an import costs ---------------------------------------------------------------------------------------

HEAVY = {"torch", "transformers", "numpy", "accelerate", "jinja2"}


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the heavy packages it loaded."""
    script = f"import sys\n{code}\nprint('LOADED', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return HEAVY & set(done.stdout.rpartition("LOADED")[2].split())


def test_importing_the_package_and_its_light_modules_loads_nothing_heavy():
    light = ["refusal", *(f"refusal.{name}" for name, floor in FLOORS.items() if floor == 1 and name != "equations")]
    assert loaded_by(f"import {', '.join(light)}") == set()


def test_the_report_and_figures_need_no_torch():
    assert not loaded_by("import refusal.figures, refusal.report") & {"torch", "transformers"}


def test_the_import_check_can_fail():
    assert loaded_by("import refusal, jinja2") == {"jinja2"}


def test_help_answers_at_once_because_it_loads_nothing_heavy():
    for arguments in (["--help"], ["run", "--help"]):
        code = (
            f"from refusal.cli import main\nsys.argv = ['refusal', *{arguments}]\ntry: main()\nexcept SystemExit: pass"
        )
        assert loaded_by(code) == set()


# --- public names -----------------------------------------------------------------------------------------------


def test_public_names_are_sorted_exist_and_hide_no_module():
    assert refusal.__all__ == sorted(refusal.__all__)
    for name in refusal.__all__:
        assert getattr(refusal, name).__doc__, f"{name} has no docstring"
    assert set(refusal.__all__) & set(UNITS) == set()
    with pytest.raises(AttributeError, match="no attribute 'abliterate'"):
        _ = refusal.abliterate


def test_type_checkers_see_the_names_that_are_loaded_on_first_use():
    block = next(node for node in TREES[SOURCE / "__init__.py"].body if isinstance(node, ast.If))
    seen = [(alias.name, node.module) for node in block.body for alias in node.names]
    assert sorted(seen) == [(name, f"refusal.{home}") for name, home in sorted(refusal._HOMES.items())]
    assert sorted(refusal._HOMES) == refusal.__all__


def test_options_of_public_functions_are_given_by_name():
    for name in refusal.__all__:
        if isinstance(function := inspect.unwrap(getattr(refusal, name)), FunctionType):
            by_place = [p for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
            assert [p.name for p in by_place[2:] if p.default is not p.empty] == [], name


def definitions(tree: ast.AST) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Yield the public functions, classes and methods of a module by name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{name}", inner) for name, inner in definitions(node))


@pytest.mark.parametrize("path", FILES)
def test_everything_public_has_a_docstring_and_no_hidden_parameters(path):
    assert ast.get_docstring(TREES[path]), f"{path} has no docstring"
    for name, node in definitions(TREES[path]):
        if any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list):
            continue  # one of several signatures of what follows
        assert ast.get_docstring(node), f"{path}: {name} has no docstring"
        if isinstance(node, ast.FunctionDef) and name != "Run.note":  # whose keywords are data, not parameters
            assert node.args.kwarg is None, f"{path}: {name} takes **{node.args.kwarg.arg}"


@pytest.mark.parametrize("path", FILES)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE


@pytest.mark.parametrize("path", FILES)
def test_functions_are_short(path):
    functions = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.FunctionDef)]
    long = {f.name: n for f in functions if (n := (f.end_lineno or 0) - f.lineno + 1) > MAX_FUNCTION}
    assert long == {}


@pytest.mark.parametrize("path", FILES)
def test_annotations_are_real_and_no_pickle_is_loaded(path):
    """Shapes are checked only where annotations are evaluated; a pickle runs whatever it likes."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__", path
            assert not (node.module == "pickle" and any("oad" in alias.name for alias in node.names)), path
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            assert not function.startswith(("pickle.", "dill.", "joblib.")), path
            if function == "torch.load":
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path


# --- one spelling of x − (x·r̂)r̂ --------------------------------------------------------------------------------

PRODUCTS = {"sum", "dot", "inner", "vdot", "matmul", "mv", "mm", "einsum", "tensordot", "outer", "project"}


def _multiplies(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Mult | ast.MatMult)
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in PRODUCTS


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)} - {"torch", "equations"}


def projections(tree: ast.AST) -> list[str]:
    """Return the code that subtracts from something a vector times a product with that same thing."""
    assigned = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and _multiplies(node.value)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Sub):
            left, right = node.target, node.value
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
            left, right = node.left, node.right
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2].startswith("addcmul"):
            method = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) != "torch"
            left, *factors = [node.func.value, *node.args] if method else node.args
            right = ast.BinOp(factors[0], ast.Mult(), factors[1])
        else:
            continue
        outer = [inner for inner in ast.walk(right) if _multiplies(inner)]
        nested = [x for x in outer for y in ast.walk(x) if y is not x and _multiplies(y) and _names(y) & _names(left)]
        known = [x for x in outer for name in _names(x) & assigned.keys() if _names(assigned[name]) & _names(left)]
        if nested or known:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "equations.py"])
def test_the_projection_is_spelled_only_in_equations(path):
    assert projections(TREES[path]) == []


def test_the_projection_check_finds_every_usual_spelling_and_the_one_in_equations():
    spellings = [
        "x - (x @ r)[..., None] * r",
        "x - (x * r).sum(-1, keepdim=True) * r",
        "x -= (x @ r) * r",
        "weight - torch.outer(r, r @ weight)",
        "x - torch.einsum('bd,d,e->be', x, r, r) * project(x, r)",
        "along = x @ r\ny = x - along[:, None] * r",
        "x.addcmul((x @ r)[..., None], r, value=-1)",
        "torch.addcmul(x, project(x, r)[..., None], r, value=-1)",
    ]
    assert [code for code in spellings if not projections(ast.parse(code))] == []
    assert len(projections(TREES[SOURCE / "equations.py"])) == 1
    assert projections(ast.parse("a = n * 2 - b * c\nd = total - (weights * y).sum()")) == []


# --- documentation ----------------------------------------------------------------------------------------------


def test_every_setting_is_documented():
    for cls in (node for node in TREES[SOURCE / "config.py"].body if isinstance(node, ast.ClassDef)):
        for field, text in zip(cls.body, [*cls.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                documented = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                assert documented, f"{cls.name}.{ast.unparse(field.target)} has no line of documentation under it"
                assert str(text.value.value).endswith("."), ast.unparse(field.target)


def test_the_readme_tree_has_one_line_for_every_module():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^[│├└─\s]*([a-z_]+)(?:\.py|/)[ \t]+(?:([1-7–])[ \t]+)?(\S.*)$", readme, re.MULTILINE)
    assert sorted(set(UNITS) - {name for name, _, _ in lines}) == []
    digits = {name: int(floor) for name, floor, _ in lines if floor.isdigit() and name in UNITS}
    assert digits == {name: FLOORS[name] for name in digits}


def test_no_file_names_a_machine_or_a_package_index():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folders = "|".join(["work", "root", "home", "opt", "Users", "mnt"])
    pattern = re.compile(rf"(?<![\w.~:/-])/(?:{folders})/\w|--(?:extra-)?index" + r"-url|--find" + r"-links")
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and b"\0" not in (data := path.read_bytes()):
            found += [f"{name}: {match[0]}" for match in pattern.finditer(data.decode("utf-8", "replace"))]
    assert found == []
    assert pattern.search("see /wo" + "rk/main/x")
    assert pattern.search("pip --extra-index" + "-url X")
