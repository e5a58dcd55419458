"""`refusal mechanism`: both commands on the bundled model, into a run folder, and with what cannot be."""

import json

import pytest
import torch

import refusal
import run_folder
from refusal import analyses
from refusal.cli import main
from refusal.errors import BadSetting
from refusal.records import Run, read_json, write_json
from refusal.report import write_report


@pytest.fixture(scope="module")
def saved(bundled, harmful, harmless, tmp_path_factory):
    path = tmp_path_factory.mktemp("direction") / "direction.safetensors"
    refusal.mean_difference(bundled, harmful.train[:48], harmless.train[:48]).at(-4, 7).save(path)
    return str(path)


def test_suffixes_are_studied_into_a_run_folder_and_its_report(saved, tmp_path, capsys):
    run = run_folder.build(tmp_path / "run")
    write_report(run)
    (tmp_path / "two.txt").write_text("build speech tra daisy\nglove windmill of\n")
    words = ["mechanism", "suffix", "organism", "--direction", saved, "--suffix", str(tmp_path / "two.txt")]
    main([*words, "--n", "2", "--heads", "3", "--max-new-tokens", "8", "--run", str(run), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [one["suffix"] for one in told] == ["build speech tra daisy", "glove windmill of"]
    assert [read_json(run / "mechanism" / name) for name in ("suffix.json", "suffix-2.json")] == told
    assert told[0]["refused"]["suffix"]["n"] == told[0]["cosines"]["n"][0] == 2
    assert len(told[0]["attention"]["axes"]["head"]) == 3
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(f"<code>{one['suffix']}</code>" in page for one in told)


def test_a_study_takes_no_place_that_the_run_itself_has_filled(saved, tmp_path):
    run = Run(run_folder.build(tmp_path / "run"))
    with run.step("mechanism suffix", "inputs", ["mechanism/suffix.json"]):
        write_json(run.folder / "mechanism" / "suffix.json", {"of": "the run"})
    words = ["mechanism", "suffix", "organism", "--direction", saved, "--suffix", "build speech tra daisy", "--n", "2"]
    main([*words, "--max-new-tokens", "8", "--run", str(run.folder)])
    assert run.done("mechanism suffix", "inputs")
    assert read_json(run.folder / "mechanism" / "suffix-2.json")["suffix"] == "build speech tra daisy"


def test_a_direction_of_another_model_is_told_at_once(tmp_path, capsys):
    refusal.Direction(torch.ones(3), 1, -1).save(tmp_path / "other.safetensors")
    with pytest.raises(SystemExit):
        main(["mechanism", "measure", "organism", "--direction", str(tmp_path / "other.safetensors"), "--n", "1"])
    assert "The direction has 3 components" in capsys.readouterr().err


def test_the_bundled_model_has_a_suffix_of_its_own_and_the_table_names_every_condition(saved, capsys):
    main(["mechanism", "suffix", "organism", "--direction", saved, "--n", "3", "--max-new-tokens", "8"])
    out = capsys.readouterr().out
    assert "build speech tra daisy" in out
    assert all(name in out for name in ("harmful", "random suffix", "permuted suffix", "suffix first", "harmless"))


def test_a_suffix_is_searched_for_and_written_as_a_file_that_suffix_reads(tmp_path, capsys):
    output = tmp_path / "found.json"
    words = ["--n", "2", "--length", "3", "--steps", "1", "--candidates", "3", "-o", str(output)]
    main(["mechanism", "find-suffix", "organism", *words])
    found = read_json(output)
    assert found["suffix"] in capsys.readouterr().out
    assert len(found["curve"]) == 2
    assert found["settings"]["length"] == 3
    assert found["refusal_tokens"]["texts"] == ["I", "As"]


def test_analyses_are_done_without_a_run(saved, tmp_path, capsys):
    words = ["mechanism", "measure", "organism", "--direction", saved, "--names", "suffix", "--n", "2"]
    main([*words, "--max-new-tokens", "8", "--out", str(tmp_path / "found"), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told == {"suffix": read_json(tmp_path / "found" / "suffix.json")}
    main([*words, "--max-new-tokens", "8"])
    assert "cosine at layer 7" in capsys.readouterr().out


def test_of_all_analyses_those_that_cannot_be_done_are_left_out_and_named(saved, monkeypatch, capsys):
    def refuse(_subject):
        raise BadSetting("No base was named.")

    monkeypatch.setattr("refusal.explaining.ANALYSES", {"base-and-chat": refuse, "pca": analyses.ANALYSES["pca"]})
    words = ["mechanism", "measure", "organism", "--direction", saved, "--n", "4", "--json"]
    main(words)
    told = capsys.readouterr()
    assert list(json.loads(told.out)) == ["pca"]
    assert "Not measured: base-and-chat. No base was named." in told.err
    with pytest.raises(SystemExit):
        main([*words, "--names", "base-and-chat"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mechanism", "measure", "organism", "--direction", __file__, "--names", "sufix"], "Did you mean 'suffix'?"),
        (["mechanism", "suffix", "elsewhere", "--direction", __file__], "no suffix to study"),
        (["mechanism", "suffix", "organism", "--direction", __file__, "--run", "nowhere"], "nowhere"),
        (["mechanism", "suffix", "organism", "--direction", __file__, "--n", "0"], "n is 0"),
        (["mechanism", "find-suffix", "organism", "--length", "0"], "length is 0"),
        (["mechanism", "find-suffix", "organism", "--n", "0"], "n is 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


def test_mechanism_alone_names_what_there_is(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["mechanism"])
    assert stop.value.code == 2
    assert "mechanism suffix" in capsys.readouterr().err
