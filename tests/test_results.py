"""Records → headline numbers, on a run folder made by hand whose counts are known."""

import pytest

from refusal.config import RunConfig
from refusal.errors import BadRunFolder
from refusal.records import read_json, write_json, write_rows
from refusal.results import summarize, table_rows
from refusal.verdicts import Verdict

R, C, U = "refused", "complied", "undetermined"
WORDS = {  # set, intervention → what the substring judge said
    ("harmful", "none"): (R, R, R),
    ("harmful", "ablation"): (C, C, R),
    ("harmful", "random_ablation"): (R, R, U),
    ("harmful", "weights"): (C, C, R),
    ("harmless", "none"): (C, C, C),
    ("harmless", "addition"): (R, R, R),
    ("harmless", "random_addition"): (C, C, R),
}


def write_judgements(path, words):
    write_rows(path, (Verdict(word).record() for word in words))


@pytest.fixture
def folder(tmp_path):
    """A run folder with two candidates and seven sets of completions."""
    config = RunConfig(harmless_coefficient=2.0).record()
    write_json(tmp_path / "run.json", {"format": 2, "model": "some/model", "config": config})
    candidate = {"position": -1, "bypass": -1.5, "induce": 0.5, "kl": None}
    rows = [candidate | {"layer": i, "verdict": v} for i, v in enumerate(("no difference", "survivor", "selected"))]
    write_rows(tmp_path / "selection.jsonl", rows)
    for (name, kind), words in WORDS.items():
        answers = [{"prompt": str(i), "response": f"{kind == 'weights' and i == 2}", "tokens": 4} for i in range(3)]
        write_rows(tmp_path / f"completions/{name}.{kind}.jsonl", answers)
        write_judgements(tmp_path / f"judgements/{name}.{kind}.substring.jsonl", words)
    write_judgements(tmp_path / "judgements/harmful.ablation.grammar.jsonl", (C, "incoherent", R))
    return tmp_path


def test_every_number_is_that_of_the_records(folder):
    write_json(folder / "projections.json", {"norm": 3.5, "resid_norm": 7.0})
    results = summarize(folder)
    assert list(results)[:8] == ["model", "position", "layer", "bypass", "induce", "kl", "survivors", "total"]
    assert list(results.values())[:8] == ["some/model", -1, 2, -1.5, 0.5, None, 2, 3]
    assert (results["direction_norm"], results["resid_norm"]) == (3.5, 7.0)
    ablation = results["harmful"]["ablation"]
    assert (ablation["refused"], ablation["n"], ablation["rate"]) == (1, 3, 1 / 3)
    assert (ablation["low"], ablation["high"]) == pytest.approx((0.0615, 0.7923), abs=1e-4)  # Wilson, 1 of 3
    assert (ablation["exact"]["exact"], ablation["exact"]["n"]) == (1, 3)
    assert "exact" not in results["harmful"]["none"]
    assert results["weights_equal_ablation"] == {"harmful": {"identical": 2, "n": 3}}


def test_the_control_is_that_of_the_papers_intervention_on_each_set(folder):
    results = summarize(folder)
    harmful, harmless = results["harmful"], results["harmless"]
    assert harmful["random"] == harmful["random_ablation"] | {"control_of": "ablation"}
    assert harmless["random"] == harmless["random_addition"] | {"control_of": "addition"}
    assert harmless["addition"]["coefficient"] == harmless["random"]["coefficient"] == 2.0
    assert "coefficient" not in harmful["random"]


def test_what_a_run_lacks_is_left_out(folder):
    (folder / "judgements/harmless.random_addition.substring.jsonl").unlink()
    results = summarize(folder)
    assert set(results["harmless"]) == {"none", "addition"}
    assert "direction_norm" not in results


def test_a_further_judge_is_counted_under_its_own_name_and_undetermined_ones_apart(folder):
    record = read_json(folder / "run.json")
    write_json(folder / "run.json", record | {"judges": {"my-guard": {"measure": "unsafe"}}})
    write_judgements(folder / "judgements/harmful.ablation.my-guard.jsonl", ("unsafe", U, "safe"))
    results = summarize(folder)
    row = results["harmful"]["ablation"]
    assert {name: row["judges"]["my-guard"][name] for name in ("unsafe", "n", "rate", "undetermined")} == {
        "unsafe": 1, "n": 2, "rate": 0.5, "undetermined": 1
    }  # fmt: skip
    assert (row["refused"], row["n"]) == (1, 3)
    assert "judges" not in results["harmful"]["none"]
    # A judgements file of a judge that run.json does not name is nobody's: nothing says what it counts.
    write_json(folder / "run.json", record)
    assert "judges" not in summarize(folder)["harmful"]["ablation"]


def test_rates_over_several_system_prompts_have_their_spread(folder):
    record = read_json(folder / "run.json")
    names = ("harmful", "harmless", "bench", "bench@brief", "bench@none", "alone")
    sets = [{"name": name, "headline": None} for name in names]
    write_json(folder / "run.json", record | {"evaluations": sets, "judges": {"guard": {"measure": "unsafe"}}})
    for name, words in (("bench", (R, R)), ("bench@brief", (R, C)), ("bench@none", (C, C)), ("alone", (R, R))):
        write_judgements(folder / f"judgements/{name}.none.substring.jsonl", words)
        write_judgements(folder / f"judgements/{name}.none.guard.jsonl", ("unsafe", "safe" if R in words else U))
    write_judgements(folder / "judgements/bench.ablation.substring.jsonl", (C, C))  # not under all of them
    systems = summarize(folder)["systems"]
    assert list(systems) == ["bench"]
    assert list(systems["bench"]) == ["none"]
    assert systems["bench"]["none"]["refused"] == {"n": 3, "mean": 0.5, "sd": 0.5, "min": 0.0, "max": 1.0}
    assert systems["bench"]["none"]["judges"]["guard"]["mean"] == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_a_judge_or_a_set_of_any_name_hides_no_number(folder):
    record = read_json(folder / "run.json")
    sets = [{"name": "harmful", "headline": "ablation"}, {"name": "harmless", "headline": "addition"}]
    sets.append({"name": "losses", "headline": None})
    judges = {"refused": {"measure": "unsafe"}}
    write_json(folder / "run.json", record | {"evaluations": sets, "judges": judges})
    write_judgements(folder / "judgements/harmful.ablation.refused.jsonl", ("unsafe", "safe", "safe"))
    write_judgements(folder / "judgements/losses.none.substring.jsonl", ("refused", "complied"))
    results = summarize(folder)
    assert results["harmful"]["ablation"]["refused"] == 1
    assert results["harmful"]["ablation"]["judges"]["refused"]["unsafe"] == 1
    assert results["further"]["losses"]["none"]["refused"] == 1
    assert results["losses"] == {}
    assert [row["prompts"] for row in table_rows(results)][-1] == "losses"


def test_a_table_has_a_line_for_each_intervention_and_names_its_coefficient(folder):
    rows = table_rows(summarize(folder))
    lines = [(row["prompts"], row["intervention"]) for row in rows]
    assert lines == [
        ("harmful", "none"),
        ("harmful", "ablation"),
        ("harmful", "random ablation"),
        ("harmful", "weights"),
        ("harmless", "none"),
        ("harmless", "addition (c = 2)"),
        ("harmless", "random addition (c = 2)"),
    ]
    assert rows[1]["refused"].startswith("1/3 = 33.3%")


def test_a_selection_without_a_winner_is_a_bad_run_folder(folder):
    write_rows(folder / "selection.jsonl", [{"position": -1, "layer": 0, "verdict": "late layer"}])
    with pytest.raises(BadRunFolder, match=r"holds no selected candidate.*run again"):
        summarize(folder)


@pytest.mark.parametrize("name", ["run.json", "selection.jsonl"])
def test_a_missing_record_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(BadRunFolder, match=f"{name} is missing"):
        summarize(folder)


def test_controls_of_which_nothing_could_be_judged_are_in_no_spread(folder):
    write_judgements(folder / "judgements/harmful.random_ablation.substring.jsonl", (U, U, U))
    results = summarize(folder)
    row = results["harmful"]["random_ablation"]
    assert (row["n"], row["undetermined"]) == (0, 3)
    assert results["randoms"]["harmful"] == {}
