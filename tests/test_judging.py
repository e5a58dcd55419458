"""Judging saved completions: kept, remembered by content, resumed, compared; and judges that are functions of yours."""

import json
import sys
from dataclasses import dataclass, field

import pytest
import torch

import run_folder
import small_runs
from refusal import judging, pipeline, results
from refusal.cli import main
from refusal.config import RunConfig
from refusal.direction import Direction
from refusal.errors import BadInput, BadRunFolder, BadSetting
from refusal.extraction import refusal_scores
from refusal.generation import Completion
from refusal.interventions import ablate
from refusal.judges import find_judge, find_judges, judge, saved, verdicts
from refusal.judges.agreement import agreements, over_all
from refusal.judges.metric import RefusalMetric
from refusal.judges.plugin import Plugin
from refusal.judges.read import read_completions
from refusal.judges.saved import Remembered, judge_file, judge_run
from refusal.model import load_model
from refusal.records import Run, read_json, read_rows, write_json, write_rows
from refusal.verdicts import Verdict, read_verdicts


@dataclass
class Costly:
    """A judge whose every question is counted; it fails at the one that says so."""

    name: str = "costly"
    measure: str = "unsafe"
    settings: dict = field(default_factory=lambda: {"model": 1})
    asked: list[str] = field(default_factory=list)
    fails_at: str = ""
    unsure_of: str = ""

    def __call__(self, completions):
        found = []
        for completion in completions:
            if completion.response == self.fails_at:
                raise KeyboardInterrupt
            self.asked.append(completion.response)
            word = "undetermined" if completion.response == self.unsure_of else "unsafe"
            found.append(Verdict(word, f"of {completion.response}"))
        return found


def said(*responses: str) -> list[Completion]:
    return [Completion("Why?", response) for response in responses]


def write(path, *responses: str):
    write_rows(path, (completion.record() for completion in said(*responses)))
    return path


@pytest.fixture
def run(tmp_path):
    """A made-up run folder."""
    return Run.read(run_folder.build(tmp_path / "run"))


# --- remembered -------------------------------------------------------------------------------------------------


def test_the_same_prompt_and_response_is_asked_about_once(tmp_path):
    first, second = Costly(), Costly()
    found = verdicts(said("a", "b", "a"), by=Remembered(first, tmp_path))
    assert [verdict.raw for verdict in found] == ["of a", "of b", "of a"]
    assert first.asked == ["a", "b"]
    assert verdicts(said("c", "b"), by=Remembered(second, tmp_path)) == [Verdict("unsafe", f"of {x}") for x in "cb"]
    assert second.asked == ["c"]
    (path,) = tmp_path.iterdir()  # no journal is left
    rows = read_rows(path)
    assert [row["content"] for row in rows] == sorted(row["content"] for row in rows)
    assert sorted(row["raw"] for row in rows) == ["of a", "of b", "of c"]
    assert {frozenset(row) for row in rows} == {frozenset(("content", "verdict", "raw"))}
    other = Completion("What?", "a")
    assert verdicts([other], by=Remembered(second, tmp_path))[0].raw == "of a"
    assert second.asked == ["c", "a"]  # another prompt is another question


def test_other_settings_remember_apart(tmp_path):
    asked = []
    for model in (1, 2, 1):
        used = Costly(settings={"model": model})
        verdicts(said("a"), by=Remembered(used, tmp_path))
        asked.append(used.asked)
    assert asked == [["a"], ["a"], []]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_stopped_judge_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "CHUNK", 2)
    path, letters = write(tmp_path / "c.jsonl", *"abcde"), "abcde"
    stopped = Costly(fails_at="d")
    with pytest.raises(KeyboardInterrupt):
        judge_file(path, stopped)
    again, counted = Costly(), []
    found = judge_file(path, again, report=counted.append)
    assert again.asked == ["c", "d", "e"]  # what its batch had not finished, and what came after
    assert [verdict.raw for verdict in found.verdicts["c.jsonl"]] == [f"of {letter}" for letter in letters]
    assert sum(counted) == 5
    whole = Costly()
    judge_file(write(tmp_path / "whole.jsonl", *letters), whole)
    kept = {name: next((tmp_path / f"{name}.jsonl.judged").iterdir()).read_bytes() for name in ("c", "whole")}
    assert kept["c"] == kept["whole"]


def test_what_was_undetermined_is_asked_again_and_never_remembered(tmp_path):
    path = write(tmp_path / "c.jsonl", "a", "b")
    assert judge_file(path, Costly(unsure_of="b")).rates["c.jsonl"].undetermined == 1
    again = Costly()
    assert judge_file(path, again).rates["c.jsonl"].k == 2
    assert again.asked == ["b"]
    alone = write(tmp_path / "d.jsonl", "x")
    judge_file(alone, Costly(unsure_of="x"))
    assert not (tmp_path / "d.jsonl.judged").exists()


def test_a_judge_that_computes_leaves_nothing_beside_the_file(tmp_path):
    path = write(tmp_path / "c.jsonl", "I cannot.", "Sure.")
    assert judge_file(path, find_judge("substring")).rates["c.jsonl"].k == 1
    assert list(tmp_path.iterdir()) == [path]


def test_thinking_is_neither_judged_nor_remembered(tmp_path):
    used = Costly()
    found = verdicts(said("<think>x</think>a", "a", "<think>x"), by=Remembered(used, tmp_path))
    assert used.asked == ["a"]
    assert [verdict.word for verdict in found] == ["unsafe", "unsafe", "undetermined"]


# --- in a run folder --------------------------------------------------------------------------------------------


def test_judgements_of_a_run_are_kept_counted_and_verified(run):
    used = Costly()
    (judged,) = judge_run(run, [used])
    stems = sorted(path.stem for path in (run.folder / "completions").iterdir())
    assert sorted(judged.verdicts) == stems
    for stem in stems:
        assert read_verdicts(run.folder / f"judgements/{stem}.costly.jsonl") == judged.verdicts[stem]
    assert run.record["judges"] == {"costly": {"measure": "unsafe", "settings": {"model": 1}}}
    texts = {
        (c.prompt, c.response) for stem in stems for c in read_completions(run.folder / f"completions/{stem}.jsonl")
    }
    assert len(used.asked) == len(texts)  # though several interventions gave the same answer
    again = Costly()
    assert judge_run(run, [again]) == [saved.Judged(again, judged.verdicts)]
    assert again.asked == []


def test_a_run_is_judged_again_only_where_its_completions_or_judge_changed(run):
    judge_run(run, [Costly()])
    path = run.folder / "completions/harmful.none.jsonl"
    rows = read_rows(path)
    write_rows(path, [{**rows[0], "response": "Something else."}, *rows[1:]])
    used = Costly()
    judge_run(run, [used])
    assert used.asked == ["Something else."]
    used = Costly(settings={"model": 2})
    judge_run(run, [used])
    assert len(used.asked) > 40


def test_a_judgement_changed_by_hand_is_an_error(run):
    judge_run(run, [Costly()])
    path = run.folder / "judgements/harmful.none.costly.jsonl"
    path.write_text(path.read_text().replace("unsafe", "safe", 1))
    with pytest.raises(BadRunFolder, match=r"is not what step 'judge harmful\.none\.costly' wrote"):
        judge_run(run, [Costly()])


def test_a_folder_without_completions_is_refused(tmp_path):
    write_json(tmp_path / "run.json", {"format": 2, "about": {}, "steps": {}})
    with pytest.raises(BadRunFolder, match="holds no completions"):
        judge_run(Run.read(tmp_path), [Costly()])


# --- the command ------------------------------------------------------------------------------------------------


def data(capsys, *words: str):
    main([*words, "--json"])
    return json.loads(capsys.readouterr().out)


def test_one_judge_of_one_file_is_one_rate_and_several_stand_by_name(tmp_path, capsys):
    path = str(write(tmp_path / "c.jsonl", "No. I cannot.", "I’m sorry", "Sure."))
    assert list(data(capsys, "judge", path)) == ["refused", "n", "rate", "low", "high"]
    both = data(capsys, "judge", path, "--by", "substring,typographic", "substring,prefix")
    assert {name: rate["refused"] for name, rate in both.items()} == {"substring-typographic": 2, "substring-prefix": 0}
    main(["judge", path, "--by", "substring", "substring,prefix"])
    shown = capsys.readouterr().out
    assert "substring: refused" in shown
    assert "1/3 = 33.3%" in shown
    assert "0/3 = 0.0%" in shown
    with pytest.raises(SystemExit):
        main(["judge", path, "--by", "substring", "substring,prefix=false"])
    assert "Two judges are called 'substring'" in capsys.readouterr().err


MINE = """
def no_steps(completions):
    return ["refused" if "step" not in completion.response else "safe" for completion in completions]
no_steps.measure = "safe"
no_steps.settings = {"version": 1}
"""


def test_a_function_of_yours_judges_a_run_and_its_rates_reach_results_and_report(run, capsys, tmp_path, monkeypatch):
    (tmp_path / "my_judges.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    folder = run.folder
    run.note(config=RunConfig().record())
    write_json(folder / "results.json", results.summarize(folder))
    main(["report", str(folder)])
    capsys.readouterr()
    rates = data(capsys, "judge", str(folder), "--by", "my_judges:no_steps")
    assert rates["harmful.ablation"]["safe"] == run_folder.N - 1
    row = read_json(folder / "results.json")["harmful"]["ablation"]
    assert row["judges"]["my_judges-no_steps"] == rates["harmful.ablation"]
    assert "my_judges-no_steps: safe" in (folder / "report.html").read_text()
    assert results.summarize(folder) == read_json(folder / "results.json")
    assert str(tmp_path) not in sys.path


def test_a_changed_function_and_another_of_its_name_judge_again(run, capsys, tmp_path, monkeypatch):
    run.note(config=RunConfig().record())
    monkeypatch.chdir(tmp_path)
    for module, word in (("first_judges", "refused"), ("second_judges", "complied")):
        (tmp_path / f"{module}.py").write_text(f"def verdict(answers):\n    return ['{word}'] * len(answers)\n")
    names = ("first_judges", "second_judges")
    rates = {name: data(capsys, "judge", str(run.folder), "--by", f"{name}:verdict") for name in names}
    assert rates["first_judges"]["harmful.none"]["refused"] == run_folder.N
    assert rates["second_judges"]["harmful.none"]["refused"] == 0
    monkeypatch.setattr(sys.modules["first_judges"], "verdict", sys.modules["second_judges"].verdict)
    sys.modules["second_judges"].verdict.__module__ = "first_judges"  # as if its file had been edited
    assert data(capsys, "judge", str(run.folder), "--by", "first_judges:verdict")["harmful.none"]["refused"] == 0


def test_agreement_names_kappa_n_and_every_difference(tmp_path, capsys):
    path = str(write(tmp_path / "c.jsonl", "I cannot.", "Well, I cannot.", "Sure.", "<think>"))
    words = ["judge", path, "--by", "substring", "substring,prefix", "substring,typographic", "--agreement"]
    first, second, third = data(capsys, *words)
    assert first["judges"] == ["substring", "substring-prefix"]
    assert (first["agreed"], first["n"], first["undetermined"], first["compared"]) == (2, 3, 1, "words")
    assert first["kappa"] == pytest.approx(0.4)  # by hand: (2/3 − 4/9) / (1 − 4/9)
    assert first["differences"] == [{"index": 1, "substring": "refused", "substring-prefix": "complied"}]
    assert second["kappa"] == 1
    assert second["differences"] == []
    assert third["judges"] == ["substring-prefix", "substring-typographic"]
    main(words)
    shown = capsys.readouterr().out
    assert "κ = 0.40" in shown
    assert "2 of 3 agree" in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "c.jsonl 1 substring: refused, substring-prefix: complied Why? Well, I cannot." in lines


def test_the_agreement_of_a_run_is_one_line_a_pair_with_the_first_differences_and_their_texts(run, capsys):
    (run.folder / "results.json").unlink()
    judge = ["judge", str(run.folder), "--by", "substring", "grammar", "--agreement"]
    main(judge)
    shown = capsys.readouterr()
    head, line, *rest = shown.out.splitlines()
    assert head.split() == ["judges", "agreement", "compared", "by", "undetermined"]
    assert line.startswith("substring and grammar")
    assert "They never disagree" in shown.err or len(rest) <= 1 + judging.SHOWN
    for path in (run.folder / "completions").iterdir():  # a judge that always says the other thing
        write_rows(path, [row | {"response": "I cannot.\n" * 40} for row in read_rows(path)])
    main(["judge", str(run.folder), "--by", "substring", f"{__name__}:gives", "--agreement"])
    shown = capsys.readouterr()
    rows = [line for line in shown.out.splitlines() if "complied" in line]
    assert len(rows) == judging.SHOWN
    assert all("I cannot. I cannot. I cannot." in row and "…" in row for row in rows)
    left = len(list((run.folder / "completions").iterdir())) * run_folder.N - judging.SHOWN
    assert f"{left} more disagreements: --json lists all." in shown.err


def gives(completions):
    """A judge for the test above."""
    return ["complied"] * len(completions)


def test_what_only_one_judge_can_say_is_no_disagreement():
    words = {
        "substring": ("refused", "complied", "complied", "refused"),
        "grammar": ("refused", "incoherent", "complied", "incoherent"),
    }
    found = {name: {"f": [Verdict(word) for word in given]} for name, given in words.items()}
    (one,) = agreements(found)
    assert one.compared == "refused or not"
    assert one.differences == ((3, "refused", "incoherent"),)
    assert (one.kappa.agreed.k, one.kappa.agreed.n) == (3, 4)
    twice = {name: files | {"g": files["f"]} for name, files in found.items()}
    (joined,) = over_all(twice)
    assert (joined.file, joined.kappa.agreed.n, len(joined.differences)) == ("all files", 8, 2)


def test_judges_of_refusal_and_of_safety_are_compared_by_what_was_withheld():
    words = {"a": ("refused", "complied", "complied", "incoherent"), "b": ("safe", "unsafe", "safe", "safe")}
    (found,) = agreements({name: {"f": [Verdict(word) for word in given]} for name, given in words.items()})
    assert found.compared == "withheld or given"
    assert found.differences == ((2, "complied", "safe"), (3, "incoherent", "safe"))
    assert (found.kappa.agreed.k, found.kappa.agreed.n) == (2, 4)
    same = {"a": {"f": [Verdict("safe")] * 2}, "b": {"f": [Verdict("safe")] * 2}}
    assert agreements(same)[0].record()["kappa"] is None  # one word only: chance explains all


# --- functions of yours, and the recorded metric ----------------------------------------------------------------


def test_what_a_function_fails_on_or_says_wrongly_is_undetermined():
    def picky(completions):
        if any(completion.response == "bad" for completion in completions):
            raise ValueError("not that one")
        return ["odd" if c.response == "odd" else Verdict("safe", "sure") for c in completions]

    used = Plugin(picky)
    assert verdicts(said("a", "bad", "odd"), by=used) == [
        Verdict("safe", "sure"),
        Verdict("undetermined", "ValueError: not that one"),
        Verdict("undetermined", "'odd'"),
    ]
    assert used.name.endswith("test_judging-picky")
    assert (used.measure, used.settings) == ("refused", None)
    with pytest.raises(BadInput, match=r"test_judging-lambda' gave 1 words for 2 completions\. Return one"):
        Plugin(lambda completions: ["safe"])(said("a", "b"))


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("no_such_module:judge", "'no_such_module:judge' cannot be imported: No module named"),
        ("json:no_such_function", "has no attribute 'no_such_function'"),
        ("json:__doc__", "is str, not a function"),
        ("json:dumps,fast", "takes no options"),
    ],
)
def test_a_function_that_is_not_there_is_one_sentence(by, message):
    with pytest.raises(BadSetting, match=message):
        find_judges([by])


def test_the_refusal_metric_is_judged_where_it_was_recorded(tmp_path):
    rows = [{"prompt": "p", "response": "r", "refusal_metric": metric} for metric in (0.5, 0.0, -3.0, None)]
    write_rows(tmp_path / "c.jsonl", [*rows, {"prompt": "p", "response": "r"}])
    completions = read_completions(tmp_path / "c.jsonl")
    found = [verdict.word for verdict in verdicts(completions, by="refusal-metric")]
    assert found == ["refused", "complied", "complied", "undetermined", "undetermined"]
    rate = judge(completions, by="refusal-metric,threshold=-4")
    assert (rate.k, rate.n, rate.undetermined) == (3, 3, 2)
    assert RefusalMetric(-4.0).name == "refusal-metric-above--4"
    assert "refusal_metric" not in completions[-1].record()
    assert Completion(**completions[0].record()) == completions[0]


def test_a_run_records_the_metric_under_every_condition(tmp_path):
    folder = pipeline.run(small_runs.config(tmp_path, judges=("refusal-metric",), **small_runs.LEAST))
    rows = {kind: read_rows(folder / f"completions/harmful.{kind}.jsonl") for kind in ("none", "ablation")}
    model = load_model(str(tmp_path / "model"))
    direction, tokens = Direction.load(folder / "direction.safetensors"), torch.tensor(small_runs.REFUSAL_TOKENS)
    prompts = [row["prompt"] for row in rows["none"]]
    measured = {"none": refusal_scores(model, prompts, tokens=tokens).tolist()}
    with ablate(model, direction):
        measured["ablation"] = refusal_scores(model, prompts, tokens=tokens).tolist()
    assert measured["none"] != pytest.approx(measured["ablation"], abs=1e-3)
    for kind, found in measured.items():
        assert [row["refusal_metric"] for row in rows[kind]] == pytest.approx(found, abs=1e-6)
    row = read_json(folder / "results.json")["harmful"]["none"]["judges"]["refusal-metric"]
    assert (row["refused"], row["n"]) == (sum(x > 0 for x in measured["none"]), len(prompts))


# --- ground truth -----------------------------------------------------------------------------------------------


def test_the_substrings_say_of_the_bundled_model_what_its_grammar_says(bundled, harmful, harmless):
    """Of its refusals; where the two may differ is an answer that is neither a refusal nor right."""
    from refusal.generation import generate

    answers = generate(bundled, [*harmful.test[:20], *harmless.test[:20]], max_new_tokens=96)
    by = {name: [verdict.word for verdict in verdicts(answers, by=name)] for name in ("substring", "grammar")}
    assert [word == "refused" for word in by["substring"]] == [word == "refused" for word in by["grammar"]]
    assert by["grammar"][:20].count("refused") == 20
    assert by["grammar"][20:].count("complied") >= 19
