"""Opening a run: what identifies it, and which prompts it evaluates on."""

import json

import torch

import small_runs
import tiny
from refusal import study
from refusal.config import RunConfig
from refusal.pipeline import find
from refusal.prompts import load_prompts

SMALL = {"n_train": 24, "n_val": 8, "n_test": 4, "coefficients": ()}


def written(folder, name, texts):
    path = folder / name
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return str(path)


def test_files_named_like_the_bundled_sets_are_not_judged_by_its_grammar(tmp_path):
    texts = [f"What is a dog number {i}?" for i in range(20)]
    paths = {name: written(tmp_path, f"{name}.txt", [f"{name} {t}" for t in texts]) for name in ("harmful", "harmless")}
    config = RunConfig(out=tmp_path / "run", **paths, **SMALL)
    with study.open_study(config) as opened:
        assert not opened.grammar
    with study.open_study(RunConfig(out=tmp_path / "own", **SMALL)) as opened:
        assert opened.grammar


def test_a_run_begun_in_another_dtype_is_computed_again(tmp_path, monkeypatch):
    bases = []
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setattr(study, "load_model", lambda *_, name=dtype, **__: in_dtype(name))
        with study.open_study(RunConfig(out=tmp_path, **SMALL)) as opened:
            bases.append(opened.base)
    assert bases[0] != bases[1]


def in_dtype(name):
    model = tiny.chat_model("llama")
    model.network.to(getattr(torch, name))
    return model


def test_a_file_of_harmful_test_prompts_is_used_whole(tmp_path):
    path = written(tmp_path, "mine.txt", [f"mine {i}" for i in range(20)])
    harmful, _ = study.load_contrast(RunConfig(harmful_test=path))
    assert len(harmful.test) == 20
    assert harmful.train == load_prompts("harmful").train


def test_which_prompt_sets_a_run_takes_has_a_recorded_reason(tmp_path):
    path = written(tmp_path, "mine.txt", [f"mine {i}" for i in range(20)])
    with study.open_study(RunConfig(out=tmp_path / "run", harmful_test=path, **SMALL)) as opened:
        opened.note_choices({"texts": "none: given"})
        choices = opened.run.record["choices"]
    assert choices["harmful"] == "harmful: the bundled model's own"
    assert choices["harmful_test"] == f"{path}: given"
    assert {"harmless", "device", "dtype", "max_new_tokens", "texts"} <= set(choices)
    other = study._prompt_sets(RunConfig(model="another"))
    assert {setting: name for setting, (name, _) in other.items()} == {
        **{"harmful": "paper-harmful", "harmless": "paper-harmless", "harmful_test": "jailbreakbench"}
    }


def test_finding_a_direction_again_leaves_a_finished_run_finished(tmp_path):
    config = small_runs.config(tmp_path)
    find(config)
    record = tmp_path / "run" / "run.json"
    assert json.loads(record.read_text())["status"] == "stopped"
    record.write_text(record.read_text().replace('"status": "stopped"', '"status": "finished"'))
    find(config)
    assert json.loads(record.read_text())["status"] == "finished"
