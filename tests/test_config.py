"""Settings: checked when made, the same by keyword, TOML and flag, and documented."""

import importlib.util
from dataclasses import fields
from pathlib import Path

import pytest

from refusal.config import RunConfig, read_config
from refusal.errors import BadInput, BadSetting

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def generate():
    """The script that writes the generated pages, as a module."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "config.md"])
def test_generated_pages_are_fresh(generate, name):
    assert (DOCS / name).read_text(encoding="utf-8") == generate.PAGES[name](), "run: python docs/generate.py"


def test_every_setting_has_a_type_a_default_and_a_sentence(generate):
    lines = generate.config_page().splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == [field.name for field in fields(RunConfig)]
    assert all(len(row) == 4 and all(row) and row[3].endswith(".") for row in rows)
    by_name = {row[0]: row[1:3] for row in rows}
    assert by_name["`coefficients`"] == ["list of float", "`[0.25, 0.5, 0.75, 1.0, 1.25, 1.5]`"]
    assert by_name["`max_new_tokens`"] == ["int", "none"]


def test_a_setting_without_a_sentence_is_refused(generate, monkeypatch):
    sentences = generate._sentences()
    del sentences["seed"]
    monkeypatch.setattr(generate, "_sentences", lambda: sentences)
    with pytest.raises(KeyError, match="seed"):
        generate.config_page()


@pytest.mark.parametrize("name", ["n_train", "n_val", "n_test", "n_curve", "max_new_tokens"])
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_are_at_least_one(name, value):
    with pytest.raises(BadSetting, match=rf"{name} is {value}: give at least 1"):
        RunConfig(**{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune_layers": 1.0}, "prune_layers is 1.0"),
        ({"prune_layers": -0.1}, "prune_layers is -0.1"),
        ({"max_kl": float("nan")}, "max_kl is nan"),
        ({"template_arguments": "{enable_thinking: no}"}, "template_arguments is .*not a JSON object such as"),
        ({"template_arguments": "[1]"}, "not a JSON object"),
    ],
)
def test_settings_outside_their_range_are_named(changes, message):
    with pytest.raises(BadSetting, match=message):
        RunConfig(**changes)


def test_every_setting_can_stand_in_toml(tmp_path):
    given = RunConfig(
        model="some/model",
        out=Path("here"),
        n_test=7,
        refusal_tokens=(3, 4),
        max_kl=1.0,
        coefficients=(1.0, 2.0),
        max_new_tokens=9,
        system="Be brief.",
        template_arguments='{"enable_thinking": false}',
    )
    (tmp_path / "run.toml").write_text(
        'model = "some/model"\nout = "here"\nn_test = 7\nrefusal_tokens = [3, 4]\nmax_kl = 1\ncoefficients = [1, 2.0]\n'
        'max_new_tokens = 9\nsystem = "Be brief."\ntemplate_arguments = \'{"enable_thinking": false}\'\n'
    )
    read = read_config(tmp_path / "run.toml")
    assert read == given
    assert isinstance(read.max_kl, float)
    assert read.template == {"enable_thinking": False}
    (tmp_path / "run.toml").write_text("")
    assert read_config(tmp_path / "run.toml") == RunConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_tset = 3", r"no setting 'n_tset'\. Did you mean 'n_test'"),
        ("zebra = 3", r"no setting 'zebra'\. See docs/config\.md"),
        ('n_test = "3"', "'n_test' is '3'; expected"),
        ("n_test = 3.5", "'n_test' is 3.5"),
        ("n_test = true", "'n_test' is True"),
        ("n_test = -3", "n_test is -3: give at least 1"),
        ('coefficients = ["a"]', "'coefficients' is"),
        ("coefficients = [true]", "'coefficients' is"),
        ("coefficients = 1.0", "'coefficients' is 1.0"),
        ("refusal_tokens = [1.5]", "'refusal_tokens' is"),
        ("model = 3", "'model' is 3"),
    ],
)
def test_a_bad_line_of_toml_is_named(tmp_path, text, message):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(BadSetting, match=message):
        read_config(tmp_path / "run.toml")


@pytest.mark.parametrize("content", [b"n_test = ", b"\xff\xfe"])
def test_broken_toml_is_named(tmp_path, content):
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(BadInput, match=r"Cannot read the settings in .*run\.toml.*Give a TOML file"):
        read_config(tmp_path / "run.toml")
    with pytest.raises(BadInput, match="Cannot read the settings"):
        read_config(tmp_path / "absent.toml")


def test_the_place_of_the_output_is_not_part_of_what_a_run_is():
    assert RunConfig(out=Path("a")).science() == RunConfig(out=Path("b")).science()
    assert RunConfig(seed=1).science() != RunConfig(seed=2).science()
    record = RunConfig(seed=1).record()
    assert record["seed"] == {"value": 1, "given": True}
    assert record["n_val"] == {"value": 32, "given": False}
