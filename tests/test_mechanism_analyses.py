"""Analyses as steps of a run: kept in its folder, done once, noted with the reason where they cannot be done."""

from dataclasses import replace

import numpy as np
import pytest

import small_runs
from refusal import analyses, pipeline
from refusal.errors import BadInput, BadRunFolder, TooFewPrompts, UnsupportedModel
from refusal.mechanism import Measurement, Subject
from refusal.mechanism.measurement import measure
from refusal.records import Run, read_json, write_json
from refusal.report import render_report


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = small_runs.config(tmp_path_factory.mktemp("run"), **small_runs.LEAST)
    pipeline.run(config)
    return config


def counted(calls: list[Subject]):
    def analyse(subject: Subject) -> Measurement:
        calls.append(subject)
        return measure("counted", {"harmful": np.array([1.0, 2.0])}, axes={})

    return analyse


def test_an_analysis_is_done_once_and_again_when_what_it_depends_on_is_another(finished, monkeypatch):
    calls: list[Subject] = []
    monkeypatch.setattr(analyses, "ANALYSES", {"counted": counted(calls)})
    folder = analyses.explain(finished)
    assert Measurement.load(folder / "mechanism" / "counted.json").at("harmful") == 1.5
    assert analyses.explain(finished) == folder
    assert len(calls) == 1
    analyses.explain(replace(finished, n_mechanism=3))
    assert [len(subject.tests["harmful"]) for subject in calls] == [4, 3]


def test_the_subject_is_the_runs_own(finished, monkeypatch):
    calls: list[Subject] = []
    monkeypatch.setattr(analyses, "ANALYSES", {"own": counted(calls)})
    folder = analyses.explain(finished)
    (subject,) = calls
    chosen = next(score for score in subject.scores if score.verdict == "selected")
    assert (chosen.position, chosen.layer) == (subject.direction.position, subject.direction.layer)
    alone = replace(subject, run=None)  # without a folder, both are computed
    assert np.allclose(alone.candidates.differences, subject.candidates.differences, atol=1e-6)
    assert [one.verdict for one in alone.scores] == [one.verdict for one in subject.scores]
    assert folder == subject.run


def test_what_cannot_be_done_is_noted_and_stops_nothing(finished, monkeypatch):
    def refuse(_subject: Subject) -> Measurement:
        raise UnsupportedModel("This model has no <heads>.")

    calls: list[Subject] = []
    monkeypatch.setattr(analyses, "ANALYSES", {"refused": refuse, "after": counted(calls)})
    folder = analyses.explain(finished)
    assert len(calls) == 1
    assert read_json(folder / "run.json")["not_explained"] == {"refused": "This model has no <heads>."}
    monkeypatch.setattr("refusal.report.sections.SECTIONS", {"refused": lambda record: record})
    assert "This model has no &lt;heads&gt;." in render_report(folder)


def test_an_input_that_one_analysis_cannot_use_stops_none_of_the_others_and_a_changed_file_stops_all(
    finished, monkeypatch
):
    def refuse(_subject: Subject) -> Measurement:
        raise BadInput("No other order of 'a' is as long.")

    calls: list[Subject] = []
    monkeypatch.setattr(analyses, "ANALYSES", {"refused": refuse, "changed": counted(calls)})
    folder = analyses.explain(finished)
    assert read_json(folder / "run.json")["not_explained"] == {"refused": "No other order of 'a' is as long."}
    write_json(folder / "mechanism" / "changed.json", {})
    with pytest.raises(BadRunFolder, match=r"changed\.json is not what"):
        analyses.explain(finished)
    (folder / "mechanism" / "changed.json").unlink()


def test_what_was_found_on_other_inputs_does_not_pass_for_what_these_give(finished, monkeypatch):
    def needs_four(subject: Subject) -> Measurement:
        if len(subject.tests["harmful"]) < 4:
            raise TooFewPrompts("Four are needed.")
        return counted([])(subject)

    monkeypatch.setattr(analyses, "ANALYSES", {"four": needs_four})
    monkeypatch.setattr(analyses, "_suffix", lambda subject, _number: counted([])(subject))
    folder = analyses.explain(replace(finished, suffixes=("one two", "three four"))) / "mechanism"
    write_json(folder / "suffix-3.json", {})  # not the run's own
    assert {path.name for path in folder.iterdir()} >= {"four.json", "suffix-2.json"}
    analyses.explain(replace(finished, suffixes=("one two",), n_mechanism=3))
    left = {path.name for path in folder.iterdir()}
    assert "suffix-3.json" in left
    assert not {"four.json", "suffix-2.json"} & left
    assert "mechanism suffix-2" not in Run.read(folder.parent).record["steps"]
    (folder / "suffix-3.json").unlink()


def test_the_validation_prompts_are_all_those_that_the_scores_are_of(finished, monkeypatch):
    calls: list[Subject] = []
    monkeypatch.setattr(analyses, "ANALYSES", {"few": counted(calls)})
    record = read_json(analyses.explain(replace(finished, n_mechanism=1)) / "run.json")
    sizes = {name: len(prompts) for name, prompts in calls[0].val.items()}
    assert sizes == {name: record["filtering"][f"{name}_val"]["after"] for name in sizes}
    assert min(sizes.values()) > len(calls[0].train["harmful"]) == 1


def test_without_a_suffix_the_study_says_how_to_give_one(finished):
    folder = analyses.explain(finished)
    assert "--suffixes" in read_json(folder / "run.json")["not_explained"]["suffix"]


@pytest.mark.parametrize(
    ("changes", "message"), [({"base": "nowhere/nothing"}, "nowhere/nothing"), ({"suffixes": ("",)}, "no suffix")]
)
def test_what_the_analyses_could_not_use_is_told_before_the_run(finished, changes, message):
    analyses.check_settings(finished)
    with pytest.raises(BadInput, match=message):
        analyses.check_settings(replace(finished, **changes))
