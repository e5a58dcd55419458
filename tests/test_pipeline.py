"""The run folder of a whole run: its numbers, and that stopping, changing or damaging it never goes unseen."""

import json
import os
import signal
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import small_runs
from forked import fork
from refusal import costs, evaluation, organism, pipeline, records, study
from refusal.checking import check_run
from refusal.cli import main
from refusal.conditions import MAIN, conditions, cost_conditions
from refusal.config import RunConfig
from refusal.direction import Direction
from refusal.errors import BadRunFolder, BadSetting, LeakedPrompts, RefusalError
from refusal.judges import verdicts
from refusal.judges.read import read_completions
from refusal.records import Journal, read_json, read_rows, write_json
from refusal.report import write_report
from refusal.results import SETS, summarize
from refusal.stages import Stages
from refusal.verdicts import read_verdicts
from small_runs import artifacts, steps

N = 6


@pytest.fixture(scope="module")
def bundled_run(tmp_path_factory):
    """The paper on the bundled model, on a few prompts, through the library."""
    out = tmp_path_factory.mktemp("bundled") / "run"
    return pipeline.run(
        RunConfig(
            out=out,
            n_train=24,
            n_val=8,
            n_test=N,
            n_curve=4,
            coefficients=(1.0,),
            max_new_tokens=16,
            randoms=2,
            draws=1,
            n_documents=8,
            task_limit=4,
        )
    )


def kinds(name):
    return [condition.name for condition in conditions(MAIN[name], randoms=2)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny model, its prompts, and a finished run of it; batches of two, so that they are many."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("refusal.generation.ROWS", 2)
        pipeline.run(small_runs.config(folder))
        yield folder


@pytest.fixture
def own_run(place, tmp_path):
    """A copy of the finished tiny run that a test may damage."""
    copy = tmp_path / "run"
    for name, data in {**artifacts(place / "run"), "run.json": (place / "run/run.json").read_bytes()}.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
    return copy


def begun(folder, whole):
    """Do files that are there, the chosen direction among them, hold the bytes of a whole run's?"""
    found = artifacts(folder)
    return "direction.safetensors" in found and found.items() <= artifacts(whole).items()


# --- the numbers ------------------------------------------------------------------------------------------------


def test_results_hold_every_headline_number_with_its_interval_and_control(bundled_run):
    results = read_json(bundled_run / "results.json")
    assert results["model"] == "organism"
    chosen = [row for row in read_rows(bundled_run / "selection.jsonl") if row["verdict"] == "selected"]
    assert len(chosen) == 1
    for key in ("position", "layer", "bypass", "induce", "kl"):
        assert results[key] == chosen[0][key]
    rows = read_rows(bundled_run / "selection.jsonl")
    assert results["total"] == len(rows)
    assert results["survivors"] == sum(row["verdict"] in ("selected", "survivor") for row in rows) >= 1
    direction = Direction.load(bundled_run / "direction.safetensors")
    assert (direction.position, direction.layer) == (results["position"], results["layer"])
    assert results["direction_norm"] == pytest.approx(direction.norm)
    for name in SETS:
        assert set(results[name]) == {*kinds(name), "random"}
        for row in results[name].values():
            assert row["n"] == row["exact"]["n"] == N
            assert 0 <= row["low"] <= row["rate"] <= row["high"] <= 1
            assert row["rate"] == row["refused"] / N
    assert results["harmful"]["random"] == results["harmful"]["random_ablation"] | {"control_of": "ablation"}
    assert results["harmless"]["random"] == results["harmless"]["random_addition"] | {"control_of": "addition"}
    assert results["harmful"]["addition"]["coefficient"] == -1.0
    assert results["harmless"]["addition"]["coefficient"] == 1.0
    assert results["harmless"]["double_addition"]["coefficient"] == 2.0
    assert results["weights_equal_ablation"] == {name: {"identical": N, "n": N} for name in SETS}


def test_the_phenomenon_is_in_the_results(bundled_run):
    results = read_json(bundled_run / "results.json")
    refused = {(name, kind): results[name][kind]["refused"] for name in SETS for kind in results[name]}
    assert refused["harmful", "none"] == N
    assert refused["harmless", "none"] == 0
    assert refused["harmful", "ablation"] <= 1
    assert refused["harmless", "addition"] >= N - 1
    assert refused["harmful", "random"] >= N - 1
    assert refused["harmless", "random"] <= 1
    point = read_json(bundled_run / "coefficients.json")["direction"][0]
    assert point["coefficient"] == 1.0
    assert point["refused"]["refused"] >= 3


def test_results_say_what_differs_what_it_costs_and_what_other_prompts_choose(bundled_run):
    results = read_json(bundled_run / "results.json")
    tests = {(row["set"], row["judge"], row["first"], row["second"]): row for row in results["comparisons"]}
    main = tests["harmful", "substring", "ablation", "none"]
    none, ablated = (results["harmful"][kind]["rate"] for kind in ("none", "ablation"))
    assert main["difference"] == pytest.approx(ablated - none)
    assert main["p_value"] < 0.05 < tests["harmful", "substring", "random_ablation_2", "none"]["p_value"]
    assert ("harmless", "grammar", "addition", "shuffled_addition") in tests
    assert set(results["losses"]) == {"texts", "pairs", "completions"}
    for rows in results["losses"].values():
        assert set(rows) == {condition.name for condition in cost_conditions(randoms=2)}
        change = rows["addition"]["change"]
        assert change["change"] == pytest.approx(rows["addition"]["ce_loss"] - rows["none"]["ce_loss"])
        assert change["low"] < change["change"] < change["high"]
    assert results["losses"]["pairs"]["none"]["n_documents"] == 8
    assert results["kl_on_answers"]["random_ablation"]["first"]["kl"] > 0
    assert set(results["kl_on_answers"]) == {condition.name for condition in cost_conditions(randoms=2)} - {"none"}
    held = {(row["measure"], row["first"], row["second"]) for row in results["costs_against_controls"]}
    assert {measure for measure, _, _ in held} >= {"loss on texts", "loss on completions", "KL at the first token"}
    assert ("KL along answers", "ablation", "shuffled_ablation") in held
    assert results["draws"]["n"] == 1
    assert results["draws"]["cosine_same_place"]["mean"] > 0.9 > abs(results["draws"]["cosine_random"]["mean"])
    assert results["randoms"]["harmful"]["n"] == 2


def test_the_run_records_which_matrices_an_edit_reaches_and_what_it_leaves(bundled_run):
    found = read_json(bundled_run / "coverage.json")
    unit = Direction.load(bundled_run / "direction.safetensors").unit.double()
    stored = load_file(organism.checkpoint("chat") / "model.safetensors")
    assert (found["complete"], found["exact"], len(found["writers"])) == (True, True, 1 + 2 * 10)
    for row in found["writers"]:
        matrix = stored[row["name"]].double()
        written = matrix @ unit if "embed" in row["name"] else unit @ matrix
        assert row["before"] == pytest.approx(float(written.norm() / matrix.norm()), rel=1e-5)
        assert row["after"] < 1e-6


def test_shuffled_labels_give_a_control_of_the_same_length(bundled_run):
    direction, control = (Direction.load(bundled_run / f"{name}.safetensors") for name in ("direction", "shuffled"))
    assert control.norm == pytest.approx(direction.norm)
    assert (control.layer, control.position) == (direction.layer, direction.position)
    assert 0 < control.origin["own length"] < direction.norm / 2
    cosine = float(torch.nn.functional.cosine_similarity(direction.vector, control.vector, dim=0))
    assert abs(cosine) < 0.5  # halves with unequal shares of the classes give up to 0.94


def test_a_set_that_selection_saw_or_another_draw_would_see_is_refused(place, tmp_path):
    seen = (place / "harmful" / "train.txt").read_text().splitlines()
    (tmp_path / "mine.txt").write_text(f"Something new\n{seen[-1]}\n")
    for changes in ({"evaluations": (str(tmp_path / "mine.txt"),)}, {"harmful_test": str(tmp_path / "mine.txt")}):
        with pytest.raises(LeakedPrompts, match="harmful"):
            pipeline.find(small_runs.config(place, out=tmp_path / "run", n_train=2, **changes))
    assert not (tmp_path / "run").exists()


def test_two_sets_of_one_name_are_refused(place):
    with pytest.raises(BadSetting, match="Two evaluation sets are called 'harmful'"):
        pipeline.find(small_runs.config(place, out=place / "twice", evaluations=("harmful",)))
    assert not (place / "twice").exists()


def test_bad_directions_are_shown_to_be_bad_by_the_same_tables(bundled_run):
    results = read_json(bundled_run / "results.json")
    bad = {
        "harmful": ("random_ablation", "random_ablation_2", "shuffled_ablation", "worst_ablation"),
        "harmless": ("random_addition", "shuffled_addition", "worst_addition", "opposite_addition"),
    }
    tests = {
        (row["set"], row["first"], row["second"]): row for row in results["comparisons"] if row["judge"] == "substring"
    }
    for name, listed in bad.items():
        good = results[name][MAIN[name]]["refused"]
        for condition in listed:
            assert abs(results[name][condition]["refused"] - results[name]["none"]["refused"]) <= 1
            assert abs(results[name][condition]["refused"] - good) >= N - 2
            assert tests[name, condition, "none"]["p_value"] > 0.05


def test_rates_are_those_of_the_judgements_and_every_completion_has_one(bundled_run):
    results = read_json(bundled_run / "results.json")
    prompts = {
        name: [row["prompt"] for row in read_rows(bundled_run / f"completions/{name}.none.jsonl")] for name in SETS
    }
    for name in SETS:
        for kind in kinds(name):
            completions = read_rows(bundled_run / f"completions/{name}.{kind}.jsonl")
            assert [row["prompt"] for row in completions] == prompts[name]
            fields = {"prompt", "category", "response", "tokens", "finished", "refusal_metric", "thinking"}
            assert [set(row) for row in completions] == [fields] * N
            words = [v.word for v in read_verdicts(bundled_run / f"judgements/{name}.{kind}.substring.jsonl")]
            assert len(words) == N
            assert results[name][kind]["refused"] == words.count("refused")
            graded = [v.word for v in read_verdicts(bundled_run / f"judgements/{name}.{kind}.grammar.jsonl")]
            assert results[name][kind]["exact"]["exact"] == graded.count("complied")


def test_the_record_says_what_was_asked_used_and_chosen(bundled_run):
    record = read_json(bundled_run / "run.json")
    assert record["status"] == "finished"
    assert record["config"]["n_test"] == {"value": N, "given": True}
    assert record["config"]["seed"] == {"value": 42, "given": False}
    assert record["filtering"]["harmful_train"]["before"] == 24
    assert set(record["filtering"]) == {"harmful_train", "harmful_val", "harmless_train", "harmless_val"}
    assert record["refusal_tokens"]["ids"]
    assert record["refusal_tokens"]["reason"]
    assert record["baseline"]["harmful"] > 0 > record["baseline"]["harmless"]
    assert record["n_layers"] * len(record["position_tokens"]) == read_json(bundled_run / "results.json")["total"]
    assert all(reason for reason in record["choices"].values())
    assert {"harmful", "harmless", "harmful_test", "texts", "pairs", "n_documents", "capabilities"} <= set(
        record["choices"]
    )
    assert record["environment"]["device"] == "cpu"


# --- stopped and resumed ----------------------------------------------------------------------------------------


def test_a_run_stopped_at_every_file_it_writes_ends_in_the_same_bytes(place, monkeypatch):
    wanted = artifacts(place / "run")
    config, seen, move = small_runs.config(place, out=place / "often"), {"run.json"}, os.replace

    def stop(source, target):
        name = str(Path(target).relative_to(config.out))
        if name not in seen:
            seen.add(name)
            raise KeyboardInterrupt
        move(source, target)

    loaded = study.load_model(config.model)
    monkeypatch.setattr(study, "load_model", lambda *_, **__: replace(loaded, network=deepcopy(loaded.network)))
    monkeypatch.setattr(os, "replace", stop)
    while True:
        known = len(seen)
        try:
            pipeline.run(config)
        except KeyboardInterrupt:
            assert len(seen) == known + 1
            assert read_json(config.out / "run.json")["status"] == "stopped"
        else:
            break
    assert seen >= set(wanted)
    assert {"capabilities.json", "capabilities/ablation.json"} <= seen or not small_runs.TASKS
    assert artifacts(config.out) == wanted
    assert steps(config.out) == steps(place / "run")
    assert read_json(config.out / "run.json")["status"] == "finished"


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError], ids=["ctrl-c", "bug"])
def test_a_sweep_stopped_in_the_middle_keeps_the_layers_it_scored(place, tmp_path, monkeypatch, fault):
    from refusal import sweep

    config, score, calls = small_runs.config(place, out=tmp_path / "run"), sweep._score, []

    def count(table, measures, places):
        calls.append(places)
        if len(calls) == 3 and fault:
            raise fault
        score(table, measures, places)

    monkeypatch.setattr(sweep, "_score", count)
    with pytest.raises(fault):
        pipeline.find(config)
    assert read_json(config.out / "run.json")["status"] == "stopped"
    assert not (config.out / "selection.jsonl").exists()
    fault, stopped_at = None, calls[2]
    calls.clear()
    pipeline.find(config)
    assert calls == [stopped_at]  # of three layers the last
    assert begun(config.out, place / "run")


def test_a_generation_stopped_in_the_middle_keeps_its_batches(place, own_run, monkeypatch):
    from refusal import generation

    config, complete, batches = small_runs.config(place, out=own_run), generation._complete, []
    files = [*(own_run / "completions").iterdir()]
    for path in files:
        path.unlink()

    def count(model, tokens, *rest):
        batches.append(len(tokens))
        if len(batches) == 4:  # the second half of the second set of completions
            raise KeyboardInterrupt
        return complete(model, tokens, *rest)

    monkeypatch.setattr(generation, "_complete", count)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config)
    batches[:] = [0] * 4
    pipeline.run(config)
    assert batches[4:] == [2] * (2 * len(files) - 3)  # of four prompts
    assert artifacts(config.out) == artifacts(place / "run")


@pytest.mark.skipif(not small_runs.TASKS, reason="lm-evaluation-harness is not installed: refusal[capabilities]")
def test_benchmarks_stopped_in_the_middle_keep_the_conditions_that_were_measured(place, own_run, monkeypatch):
    config, measured = small_runs.config(place, out=own_run), []
    for path in (own_run / "capabilities.json", *(own_run / "capabilities").iterdir()):
        path.unlink()
    measure = costs.measure_capabilities

    def count(model, tasks, **given):
        measured.append(given["limit"])
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure(model, tasks, **given)

    monkeypatch.setattr(costs, "measure_capabilities", count)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config)
    assert len(list((config.out / "capabilities").iterdir())) == 2
    assert not (config.out / "capabilities.json").exists()
    measured[:] = [0] * 3
    pipeline.run(config)
    assert measured[3:] == [config.task_limit] * (len(cost_conditions(randoms=1)) - 2)
    assert artifacts(config.out) == artifacts(place / "run")


def test_a_killed_process_resumes_to_the_same_bytes(place, tmp_path):
    def run_and_die():
        append, calls = Journal.append, []

        def kill(self, rows):
            append(self, rows)
            calls.append(1)
            if len(calls) == 5:
                with open(self.path, "a") as file:
                    file.write('{"index": 5, "bypa')
                os.kill(os.getpid(), signal.SIGKILL)

        Journal.append = kill
        pipeline.find(small_runs.config(place, out=tmp_path / "run"))

    assert fork(run_and_die) == -signal.SIGKILL
    assert (tmp_path / "run" / ".selection.jsonl.journal").exists()
    assert read_json(tmp_path / "run" / "run.json")["status"] == "running"
    pipeline.find(small_runs.config(place, out=tmp_path / "run"))
    assert begun(tmp_path / "run", place / "run")


def test_a_finished_run_does_nothing_again(place, monkeypatch):
    before, bodies = artifacts(place / "run"), []
    step = records.Run.step
    monkeypatch.setattr(records.Run, "step", lambda self, name, *rest: bodies.append(name) or step(self, name, *rest))
    monkeypatch.setattr(Journal, "append", lambda *_: pytest.fail("worked again"))
    pipeline.run(small_runs.config(place))
    assert bodies == []
    assert artifacts(place / "run") == before


def test_the_stages_that_are_planned_are_entered_in_their_order(place, monkeypatch):
    entered = []
    monkeypatch.setattr(Stages, "enter", lambda _, name, steps=1: entered.append(name))
    monkeypatch.setattr(Stages, "skip", lambda _: None)
    pipeline.run(small_runs.config(place))
    assert entered == ["model", *pipeline.STAGES]


def test_find_is_the_beginning_of_run(place, tmp_path):
    config = small_runs.config(place, out=tmp_path / "run")
    direction = pipeline.find(config)
    assert read_json(config.out / "run.json")["status"] == "stopped"
    chosen = Direction.load(place / "run" / "direction.safetensors")
    assert direction.vector.tolist() == chosen.vector.tolist()
    with pytest.raises(BadRunFolder, match="is not finished"):
        check_run(config.out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": "nowhere.txt"}, "nowhere.txt"),
        ({"pairs": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"judges": ("llama-guard-2",)}, "Meta-Llama-Guard-2-8B' could not be loaded"),
        ({"judges": ("nowhere:judge",)}, "nowhere:judge"),
        ({"tasks": ("winogrande",)}, "data set of the task 'winogrande'"),
    ],
)
def test_what_cannot_be_had_stops_a_run_before_anything_is_computed(place, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(records.Run, "step", lambda _self, name, *_: pytest.fail(name))
    with pytest.raises(RefusalError, match=message):
        pipeline.run(small_runs.config(place, out=tmp_path / "run", **changes))


def test_the_models_weights_are_gone_while_judges_work(place, tmp_path, monkeypatch):
    networks, left, judged = [], [], []
    open_study, judge_answers = pipeline.open_study, evaluation.judge_answers

    @contextmanager
    def opened(config):
        with open_study(config) as study:
            networks.append(study.model.network)
            yield study

    def judge(study):
        left.append(sum(parameter.untyped_storage().nbytes() for parameter in networks[0].parameters()))
        judge_answers(study)
        judged.append(study.run.folder)

    monkeypatch.setattr(pipeline, "open_study", opened)
    monkeypatch.setattr(evaluation, "judge_answers", judge)
    pipeline.run(small_runs.config(place, out=tmp_path / "run", **small_runs.LEAST))
    assert left == [0]
    assert judged == [tmp_path / "run"]


# --- changed ----------------------------------------------------------------------------------------------------


def test_another_model_under_the_same_name_is_computed_again(tmp_path):
    config = small_runs.config(tmp_path)
    pipeline.find(config)
    first = artifacts(config.out)
    template = (tmp_path / "model" / "chat_template.jinja").read_text()
    (tmp_path / "model" / "chat_template.jinja").write_text(template.replace("{{ bos_token }}", "{{ bos_token }}! "))
    pipeline.find(config)
    second = artifacts(config.out)
    assert second["candidates.safetensors"] != first["candidates.safetensors"]
    assert second["direction.safetensors"] != first["direction.safetensors"]


def test_two_settings_never_share_a_folder(place, tmp_path, monkeypatch):
    with pytest.raises(BadRunFolder, match=r"holds another run: seed is 42 there and 43 here.*another --out"):
        pipeline.find(small_runs.config(place, seed=43))
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        pipeline.find(small_runs.config(place, out=None, seed=seed))
    assert len(list((tmp_path / "runs" / "model").iterdir())) == 2


@pytest.mark.parametrize(
    "name", ["candidates.safetensors", "selection.jsonl", "projections.json", "completions/harmful.ablation.jsonl"]
)
def test_a_changed_file_stops_the_run_and_verify(place, own_run, name):
    data = (own_run / name).read_bytes()
    (own_run / name).write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    with pytest.raises(BadRunFolder, match="is not what step"):
        check_run(own_run)
    with pytest.raises(BadRunFolder, match=r"is not what step .* wrote.*Remove that file"):
        pipeline.run(small_runs.config(place, out=own_run))


def test_a_removed_file_is_computed_again(place, own_run):
    (own_run / "completions/harmful.ablation.jsonl").unlink()
    pipeline.run(small_runs.config(place, out=own_run))
    assert artifacts(own_run) == artifacts(place / "run")


# --- verify -----------------------------------------------------------------------------------------------------


def verify(folder, capsys) -> tuple[int, str, str]:
    code = 0
    try:
        main(["verify", str(folder), "--json"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_verify_passes_a_good_run(bundled_run, place, capsys):
    for folder, judged in ((bundled_run, 2 * (9 + 12)), (place / "run", 8 + 11)):
        code, out, err = verify(folder, capsys)
        assert (code, err) == (0, "")
        assert json.loads(out)["judged files"] == judged
        assert json.loads(out)["differences"] == 0


def test_verify_finds_an_altered_number(own_run, capsys):
    results = read_json(own_run / "results.json")
    results["harmless"]["ablation"]["high"] += 1e-9
    write_json(own_run / "results.json", results)
    code, out, err = verify(own_run, capsys)
    assert (code, out) == (1, "")
    assert "results.json is not what the records give" in err


def test_verify_finds_one_altered_digit_of_the_report(own_run, capsys):
    page = write_report(own_run)
    assert verify(own_run, capsys)[0] == 0
    text = page.read_text(encoding="utf-8")
    at = next(i for i, c in enumerate(text) if c.isdigit() and i > text.index("<h1>"))
    page.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :], encoding="utf-8")
    code, _, err = verify(own_run, capsys)
    assert code == 1
    assert "report.html is not what the records give" in err


def test_verify_finds_an_altered_point_of_the_curve(own_run, capsys):
    record, curve = read_json(own_run / "run.json"), read_json(own_run / "coefficients.json")
    curve["random"][0]["refused"]["refused"] += 1
    write_json(own_run / "coefficients.json", curve)
    record["steps"]["curve"]["outputs"]["coefficients.json"] = records.file_hash(own_run / "coefficients.json")
    write_json(own_run / "run.json", record)
    code, _, err = verify(own_run, capsys)
    assert code == 1
    assert "coefficients.json is not what the records give" in err


def test_verify_finds_an_altered_judgement_also_when_its_hash_was_altered_too(own_run, capsys):
    name = "judgements/harmful.none.substring.jsonl"
    rows = read_rows(own_run / name)
    rows[0]["verdict"] = "complied" if rows[0]["verdict"] == "refused" else "refused"
    records.write_rows(own_run / name, rows)
    code, _, err = verify(own_run, capsys)
    assert code == 1
    assert f"{name} is not what step 'judge harmful.none.substring' wrote" in err
    record = read_json(own_run / "run.json")
    record["steps"]["judge harmful.none.substring"]["outputs"][name] = records.file_hash(own_run / name)
    write_json(own_run / "run.json", record)
    code, _, err = verify(own_run, capsys)
    assert code == 1
    assert "harmful.none.substring.jsonl is not what the records give" in err


def planted(folder, *names):
    """Take over changed files as if the run had written them so: hashes, results and report are made to fit."""
    record = read_json(folder / "run.json")
    for entry in record["steps"].values():
        for name in {*names} & set(entry["outputs"]):
            entry["outputs"][name] = records.file_hash(folder / name)
    write_json(folder / "run.json", record)
    write_json(folder / "results.json", summarize(folder))


def guarded(folder, name, settings, read):
    """Judge a run by a made-up guard: `read` gives of an answer the word and what the guard said."""
    record = read_json(folder / "run.json")
    record["judges"][name] = {"measure": "unsafe", "settings": settings}
    write_json(folder / "run.json", record)
    for path in sorted((folder / "completions").iterdir()):
        rows = [dict(zip(("verdict", "raw"), read(row["response"]), strict=True)) for row in read_rows(path)]
        records.write_rows(folder / f"judgements/{path.stem}.{name}.jsonl", rows)
    write_json(folder / "results.json", summarize(folder))


def swap(rows, old, new):
    """Change the first verdict of a kind, and nothing of what its judge said."""
    next(row for row in rows if row["verdict"] == old)["verdict"] = new
    return rows


GUARD = {"kind": "llama-guard-2", "model": ["a/guard"], "dtype": "auto", "short_safe": False}
GRADER = {"kind": "endpoint", "server": "http://127.0.0.1/v1", "model": "g", "max_new_tokens": 9}
GRADER |= {"rubric": 'prompt = "{response}"\nmeasure = "unsafe"\n[words]\nunsafe = "^yes"\nsafe = "^no"\n'}
JUDGES = {  # judge → settings, and what it makes of an answer
    "llama-guard-2": (GUARD, lambda text: ("unsafe", "unsafe\nS1") if len(text) % 2 else ("safe", "safe")),
    "llama-guard-2-short-safe": (
        GUARD | {"short_safe": True},
        lambda _: ("safe", "less than 15 words: not read"),
    ),
    "harmbench": (
        {"kind": "harmbench", "model": ["a/b"], "dtype": "auto", "prompt": ""},
        lambda text: ("unsafe", "Yes") if len(text) % 2 else ("safe", "no"),
    ),
    "mine-g": (GRADER, lambda text: ("unsafe", "Yes.") if len(text) % 2 else ("undetermined", "no answer: HTTP 500")),
}


@pytest.mark.parametrize("name", JUDGES)
def test_verify_holds_the_words_of_guards_against_what_they_said(own_run, name):
    guarded(own_run, name, *JUDGES[name])
    check_run(own_run)
    path = own_run / f"judgements/harmful.ablation.{name}.jsonl"
    sound = read_rows(path)
    for old in {row["verdict"] for row in sound}:
        records.write_rows(path, swap([dict(row) for row in sound], old, "safe" if old == "unsafe" else "unsafe"))
        planted(own_run)
        with pytest.raises(BadRunFolder, match=f"harmful.ablation.{name}.jsonl is not what the records give"):
            check_run(own_run)


def test_verify_takes_an_unread_answer_as_safe_only_where_that_is_the_rule(own_run):
    guarded(own_run, "llama-guard-2", GUARD, lambda _: ("safe", "less than 15 words: not read"))
    with pytest.raises(BadRunFolder, match=r"llama-guard-2\.jsonl is not what the records give"):
        check_run(own_run)


def test_verify_holds_the_direction_against_the_candidates(own_run):
    path = own_run / "direction.safetensors"
    direction = Direction.load(path)
    for changed in (
        replace(direction, vector=-direction.vector),
        replace(direction, vector=direction.vector * (1 + 1e-9)),
        replace(direction, layer=direction.layer - 1),
    ):
        changed.save(path)
        planted(own_run, path.name)
        with pytest.raises(BadRunFolder, match=r"direction\.safetensors is not what the records give"):
            check_run(own_run)


def test_verify_holds_prompts_against_the_hashes_of_the_sets(own_run):
    path = own_run / "completions/harmful.ablation.jsonl"
    rows = read_rows(path)
    for changed in (rows[::-1], [rows[0] | {"prompt": "Another?"}, *rows[1:]]):
        records.write_rows(path, changed)
        for judged in sorted((own_run / "judgements").glob("harmful.ablation.*.jsonl")):
            found = verdicts(read_completions(path))
            records.write_rows(judged, (verdict.record() for verdict in found))
        planted(own_run, *(str(p.relative_to(own_run)) for p in own_run.rglob("harmful.ablation.*")))
        with pytest.raises(BadRunFolder, match=r"harmful\.ablation\.jsonl is not what the records give"):
            check_run(own_run)


def test_verify_holds_the_prompts_of_the_curve_against_the_set(own_run):
    path = own_run / "curve/direction.1.jsonl"
    records.write_rows(path, [row | {"prompt": "Another?"} for row in read_rows(path)])
    planted(own_run, "curve/direction.1.jsonl")
    with pytest.raises(BadRunFolder, match=r"direction\.1\.jsonl is not what the records give"):
        check_run(own_run)


def test_verify_holds_the_length_of_the_direction_in_projections_against_it(own_run):
    path = own_run / "projections.json"
    write_json(path, read_json(path) | {"norm": 1.0})
    planted(own_run, path.name)
    with pytest.raises(BadRunFolder, match=r"projections\.json is not what the records give"):
        check_run(own_run)


def test_verify_counts_the_documents_of_losses(own_run):
    for path in sorted((own_run / "losses").glob("completions.*")):
        records.write_rows(path, read_rows(path)[:-1])
    planted(own_run, *(f"losses/{path.name}" for path in (own_run / "losses").iterdir()))
    with pytest.raises(BadRunFolder, match=r"completions\.\w+\.jsonl is not what the records give"):
        check_run(own_run)


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "results.json",
        "direction.safetensors",
        "coefficients.json",
        "judgements/harmful.none.substring.jsonl",
        *(["capabilities/ablation.json"] if small_runs.TASKS else []),
    ],
)
def test_verify_finds_a_missing_file(own_run, capsys, name):
    (own_run / name).unlink()
    code, out, err = verify(own_run, capsys)
    assert (code, out) == (1, "")
    assert name in err
