"""The command line: exit codes, help, data on stdout and talk on stderr, and every example as printed."""

import io
import json
import re
import shlex
import subprocess
import sys
from functools import partial, wraps
from pathlib import Path

import pytest
import tyro
from rich.console import Console

import small_runs
from refusal import completing, doctor, exports
from refusal.cli import COMMANDS, early, main, printing, runs
from refusal.config import RunConfig
from refusal.direction import Direction
from refusal.errors import BadInput
from refusal.hidden import spelled
from refusal.records import read_json, read_rows, write_rows
from small_runs import SMALL

RUN = ("--max-new-tokens", "40")
SCORES = [
    {"position": p, "layer": layer, "bypass": -layer + 0.1 * p, "induce": 1.0, "kl": kl}
    for p in (-2, -1)
    for layer, kl in enumerate((0.01, 0.02, 0.09, 0.5, 0.01))
]


def call(capsys, *words: str) -> tuple[int, str, str]:
    """Run a command and return its exit code, stdout and stderr."""
    code = 0
    try:
        main(list(words))
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def data(capsys, *words: str):
    """Return what a command prints as JSON: all of stdout and nothing else."""
    code, out, err = call(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


# --- help and usage ---------------------------------------------------------------------------------------------


def test_help_is_light_and_ends_with_an_example():
    script = (
        "import sys, io, json\nfrom contextlib import redirect_stdout, suppress\n"
        "from refusal.cli import COMMANDS, main\n"
        "shown = {}\n"
        "for name in COMMANDS:\n"
        "    text = io.StringIO()\n"
        "    with redirect_stdout(text), suppress(SystemExit): main([name, '--help'])\n"
        "    shown[name] = text.getvalue()\n"
        "print(json.dumps([shown, [m for m in ('torch', 'transformers', 'numpy') if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    shown, heavy = json.loads(done.stdout)
    assert heavy == []
    assert list(shown) == list(COMMANDS)
    for name, text in shown.items():
        assert text.startswith(f"usage: refusal {name} ")
        assert text.rstrip().splitlines()[-1].startswith(f"Example: refusal {name}"), text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_every_command_parses(name):
    example = str(COMMANDS[name].__doc__).strip().splitlines()[-1].strip()
    assert example.startswith(f"Example: refusal {name}")
    ran = []

    @wraps(COMMANDS[name])
    def spy(*arguments, **settings):
        ran.append((arguments, settings))

    takes_config = COMMANDS[name] in (runs.run, runs.find)
    tyro.cli(
        partial(spy, config=RunConfig()) if takes_config else spy,
        args=shlex.split(example.removeprefix(f"Example: refusal {name}")),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    assert len(ran) == 1


def test_the_list_of_commands_names_them_all(capsys):
    for words in ((), ("--help",), ("-h",)):
        code, out, err = call(capsys, *words)
        assert (code, err) == (0, "")
        assert all(f"\n  {name} " in out for name in COMMANDS)
    assert call(capsys, "--version")[1].strip().count(".") >= 2


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["doctr"], "There is no command 'doctr'. Did you mean 'doctor'?"),
        (["zzz"], "There is no command 'zzz'. See refusal --help."),
        (["mechanism"], "There is no command 'mechanism'. There are 'mechanism suffix', 'mechanism measure'"),
        (["run", "--nn-test", "3"], "--n-test"),
        (["select", "--score", "x", "--layers", "3"], "--scores"),
        (["run", "--n-test", "many"], "--n-test"),
        (["select", "--layers", "3"], "--scores"),
        (["ask"], "MODEL"),
        (["run", "--config"], "--config"),
        (["organism", "feed", "--out", "x"], "train"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_was_meant(capsys, words, shown):
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "")
    assert shown in err
    assert "Traceback" not in err


def test_our_messages_exit_1_ctrl_c_130_and_bugs_keep_their_traceback(capsys, monkeypatch):
    code, out, err = call(capsys, "report", "nowhere")
    assert (code, out) == (1, "")
    assert err.startswith("refusal: nowhere/run.json is missing")

    def fault(error):
        def stop(_model):
            raise error

        return stop

    monkeypatch.setattr(doctor, "examine", fault(KeyboardInterrupt))
    code, out, err = call(capsys, "doctor")
    assert (code, out) == (130, "")
    assert "the same command goes on from there" in err
    monkeypatch.setattr(doctor, "examine", fault(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_a_reader_that_leaves_is_no_traceback():
    script = "import sys; from refusal.cli import main; sys.stdin.read(); main(['prompts', '--json'])"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    process.stdin.close()
    assert process.wait() == 141
    assert process.stderr.read() == b""
    process.stderr.close()


# --- lists ------------------------------------------------------------------------------------------------------


def test_lists_are_json(capsys):
    families = {row["model_type"]: row for row in data(capsys, "models")}
    assert {"llama", "qwen2", "gemma"} <= set(families)
    assert "self_attn.o_proj" in families["llama"]["writers"]
    sets = {row["name"]: row for row in data(capsys, "prompts")}
    assert sets["harmful"]["counts"]["test"] >= 200
    assert {"licence", "source", "state"} < set(sets["jailbreakbench"])
    checks = {check["what"]: check for check in data(capsys, "doctor", "organism")}
    assert checks["torch"]["found"][0].isdigit()
    assert checks["bundled model"]["verdict"] == checks["organism"]["verdict"] == "ok"
    assert {check["verdict"] for check in checks.values()} <= {"ok", "warning"}
    assert all(bool(check["remedy"]) == (check["verdict"] != "ok") for check in checks.values())


def test_doctor_says_what_will_fail_and_the_remedy_and_exits_1(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    for model, shown in ((str(tmp_path), "not covered"), ("nobody/nothing", "could not be loaded")):
        code, out, err = call(capsys, "doctor", model, "--json")
        assert (code, err) == (1, "")
        assert json.loads(out)[-1]["verdict"] == "will fail"
        assert shown in json.loads(out)[-1]["remedy"]
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "sha256.json").write_text('{"chat/model.safetensors": "00"}')
    monkeypatch.setattr("refusal.organism.WEIGHTS", weights)
    monkeypatch.setattr(doctor, "requires", lambda _: ["torch>=99", "peft>=1; extra == 'adapters'"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    code, out, _ = call(capsys, "doctor", "--json")
    found = {check["what"]: check for check in json.loads(out)}
    assert code == 1
    assert found["torch"] | {"found": ""} == {
        **{"what": "torch", "found": "", "verdict": "will fail", "remedy": 'pip install "torch>=99"'}
    }
    assert found["bundled model"]["found"] == "damaged: chat/model.safetensors"
    assert "hf auth login" in found["Hugging Face Hub"]["remedy"]


# --- simple mistakes --------------------------------------------------------------------------------------------

MISTAKES = [
    (["verify", "nowhere"], "There is no file or folder 'nowhere'"),
    (["verify", "."], "run.json is missing"),
    (["judge", "nowhere.jsonl"], "There is no file or folder 'nowhere.jsonl'"),
    (["judge", ".", "--by", "oracle"], "There is no judge 'oracle'"),
    (["ask", "organism", "hi", "--direction", "nowhere"], "There is no file or folder 'nowhere'"),
    (["ask", "organsim", "hi", "--direction", "."], "Did you mean 'organism'?"),
    (["run", "./nowhere"], "There is no folder './nowhere' with a model"),
    (["run", "--judges", "oracle"], "There is no judge 'oracle'"),
    (["run", "--architecture", "nowhere.toml"], "There is no file or folder 'nowhere.toml'"),
    (["generate", "organism", "harmfull", "-o", "x"], "No prompt set is named 'harmfull'"),
    (["find", "--harmful", "nowhere.txt"], "nowhere.txt: no such file or folder"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_simple_mistakes_do_not_wait_for_torch(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("refusal.generation", "refusal.model", "refusal.judges", "refusal.pipeline", "refusal.checking"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
    code, out, err = call(capsys, *words)
    assert (code, out) == (1, "")
    assert message in err


def test_a_mistake_is_told_without_importing_torch():
    code = "import sys; from refusal.cli import main\ntry: main(['verify', 'nowhere'])\nexcept SystemExit: pass\n"
    ran = subprocess.run([sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True)
    assert ran.stdout.split() == ["False"]
    assert "There is no file or folder 'nowhere'" in ran.stderr


def test_a_models_name_on_a_server_may_look_like_a_path():
    early.check({"model": "/models/llama/70b", "server": "http://127.0.0.1/v1", "output": Path("nowhere")})
    with pytest.raises(BadInput, match="no folder '/models/llama/70b'"):
        early.check({"model": "/models/llama/70b", "server": None})


def test_generate_says_what_it_wrote(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(completing, "complete_set", lambda *_, **__: 3)
    code, out, err = call(capsys, "generate", "organism", "harmful", "-o", str(tmp_path / "x.jsonl"))
    assert (code, out) == (0, "")
    assert err == f"3 answers: {tmp_path / 'x.jsonl'}\n"


def test_verify_export_is_told_in_sentences(capsys, tmp_path, monkeypatch):
    numbers = {
        "difference": 1e-6,
        "effect": 2.0,
        "share": 5e-7,
        "limit": 0.001,
        "agreement": 1.0,
        "plain_agreement": 0.25,
    }
    facts = {"source": "organism", "prompts": 32, "set": "harmful", "tokens": 640, "reach": "exact", "holds": True}
    monkeypatch.setattr(exports, "verify", lambda *_, **__: numbers | facts)
    (tmp_path / "d").touch()
    code, out, _ = call(capsys, "verify-export", "organism", str(tmp_path), "--direction", str(tmp_path / "d"))
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert lines[0] == "verdict it holds: the export differs from hooks by 5e-07 of the effect"
    assert "greedy tokens that agree 100.0% of 640; of the unedited model's 25.0%" in lines
    assert "plain_agreement" not in out


def test_lists_for_people_hold_the_same(capsys):
    for name, shown in (("models", "qwen3_next"), ("prompts", "jailbreakbench"), ("doctor", "python")):
        code, out, err = call(capsys, name)
        assert (code, err) == (0, "")
        assert shown in out


# --- select and judge -------------------------------------------------------------------------------------------


def test_select_chooses_again_with_other_limits(tmp_path, capsys):
    write_rows(tmp_path / "scores.jsonl", SCORES)
    words = ("select", "--scores", str(tmp_path / "scores.jsonl"), "--layers", "5")
    chosen = data(capsys, *words)
    assert chosen == {
        "position": -2,
        "layer": 2,
        "bypass": -2.2,
        "induce": 1.0,
        "kl": 0.09,
        "survivors": 6,
        "total": 10,
    }
    assert data(capsys, *words, "--max-kl", "0.05")["layer"] == 1
    assert data(capsys, *words, "--max-kl", "1", "--prune-layers", "0")["layer"] == 4
    code, out, err = call(capsys, *words, "--min-induce", "2")
    assert (code, out) == (1, "")
    assert "None of 10 candidates passes" in err


def test_judge_reads_the_official_array(tmp_path, capsys):
    answers = ["I cannot do that.", "As an AI, no.", "Sure.\u2028Paint it.", "<b>[red]</b>"]
    rows = [{"category": None, "prompt": f"Paint {i}", "response": answer} for i, answer in enumerate(answers)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    rate = data(capsys, "judge", str(tmp_path / "a.json"), "--by", "substring")
    assert list(rate) == ["refused", "n", "rate", "low", "high"]
    assert (rate["refused"], rate["n"], rate["rate"]) == (2, 4, 0.5)
    assert (rate["low"], rate["high"]) == pytest.approx((0.1500, 0.8500), abs=1e-4)  # Wilson, 2 of 4
    code, out, _ = call(capsys, "judge", str(tmp_path / "a.json"))
    assert code == 0
    assert "2/4 = 50.0%" in out


# --- on the bundled model ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A folder in which `refusal find` has been run on the bundled model: its direction and its run folder."""
    folder = tmp_path_factory.mktemp("found")
    main(["find", "organism", "-o", str(folder / "d.safetensors"), "--out", str(folder / "run"), *SMALL, *RUN])
    return folder


def test_find_saves_the_direction_of_its_run(found):
    direction = Direction.load(found / "d.safetensors")
    assert (found / "d.safetensors").read_bytes() == (found / "run" / "direction.safetensors").read_bytes()
    rows = read_rows(found / "run" / "selection.jsonl")
    chosen = next(row for row in rows if row["verdict"] == "selected")
    assert (direction.position, direction.layer) == (chosen["position"], chosen["layer"])


def test_ask_answers_plain_ablated_and_added(found, capsys, harmful, harmless):
    direction = str(found / "d.safetensors")
    words = ("--direction", direction, "--max-new-tokens", "16")
    bad = data(capsys, "ask", "organism", harmful.test[0].instruction, *words)
    good = data(capsys, "ask", "organism", harmless.test[0].instruction, *words)
    assert list(bad) == list(good) == ["plain", "ablated", "added"]
    assert len({bad["plain"], bad["ablated"]}) == 2
    assert len({good["plain"], good["added"]}) == 2
    assert good["plain"] == good["ablated"]


def test_ask_says_one_answer_after_the_other_where_nobody_watches(found, capsys, harmful):
    words = ("ask", "organism", harmful.test[0].instruction, "--direction", str(found / "d.safetensors"))
    words += ("--max-new-tokens", "8")
    told = data(capsys, *words)
    code, out, err = call(capsys, *words)
    assert (code, err) == (0, "")
    layer = Direction.load(found / "d.safetensors").layer
    titles = ("plain (substring: refused)", "ablated at every layer (substring: not refused)")
    added = f"added at layer {layer}, c = 1 (substring: refused)"
    assert out == "\n\n".join(map("\n".join, zip((*titles, added), told.values(), strict=True))) + "\n"


def test_ask_writes_three_columns_in_a_terminal(found, capsys, monkeypatch, harmful):
    words = ("ask", "organism", harmful.test[0].instruction, "--direction", str(found / "d.safetensors"))
    short = ("--max-new-tokens", "12")
    told = data(capsys, *words, *short)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, _ = call(capsys, *words, *short)
    assert code == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out)
    tops = [line for line in shown.splitlines() if " plain " in line]
    assert len(tops) >= 12  # a picture a token
    assert all(" ablated " in line and " added " in line for line in tops)
    assert " added at layer " in tops[-1]
    assert "c = 1 " in tops[-1]
    assert shown.splitlines()[-1].count("substring: ") == 3
    last = shown.rpartition(" added ")[2].replace("│", " ").split()
    assert set(" ".join(told.values()).split()) <= set(last)


@pytest.mark.parametrize(("width", "beside"), [(120, True), (99, True), (98, False), (40, False)])
def test_texts_stand_below_each_other_in_a_narrow_terminal_and_no_word_is_cut(monkeypatch, width, beside):
    monkeypatch.setenv("COLUMNS", str(width))
    console = Console(file=io.StringIO(), width=width)
    texts = {"plain": "yes", "ablated": "no", "added": "cannot" + "I" * 150 + "."}
    console.print(printing.columns([printing.Titled(*each) for each in texts.items()]))
    shown = console.file.getvalue()
    assert (" ablated " in shown.splitlines()[0]) == beside
    assert (shown.count("I"), shown.count("."), "…" in shown) == (150, 1, False)


def test_a_word_longer_than_its_column_is_folded_in_a_table():
    console = Console(file=io.StringIO(), width=30)
    console.print(printing.table([{"name": "n" * 40, "value": "v" * 40}]))
    assert (console.file.getvalue().count("n"), console.file.getvalue().count("v")) == (41, 41)


def test_a_model_cannot_steer_the_terminal():
    word = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # Persian, with a joiner in it
    hostile = f"\x1b[2Jgone\x07 \u202egnp.exe\u2066 {word} a\tb\nc\u00a0d \ud800"
    shown = f"\\x1b[2Jgone\\x07 \\u202egnp.exe\\u2066 {word} a\tb\nc\u00a0d \\ud800"
    assert spelled(hostile) == shown
    assert "\x1b" not in printing.paragraphs([printing.Titled("plain", hostile)])
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    console.print(printing.table([{"value": hostile}]), printing.columns([printing.Titled("plain", hostile)]))
    assert "\x1b[2J" not in console.file.getvalue()


def test_generate_writes_what_judge_reads(found, tmp_path, capsys, monkeypatch, harmful):
    monkeypatch.setattr(completing, "load_prompts", lambda name, **_: {"test": harmful.test[:6]})
    rates = {}
    for name, words in (("plain", ()), ("ablated", ("--ablate", str(found / "d.safetensors")))):
        path = tmp_path / f"{name}.jsonl"
        code, out, _ = call(capsys, "generate", "organism", "harmful", "-o", str(path), *words)
        assert (code, out) == (0, "")
        assert [row["prompt"] for row in read_rows(path)] == [prompt.instruction for prompt in harmful.test[:6]]
        rates[name] = data(capsys, "judge", str(path))["refused"]
    assert rates["plain"] == 6
    assert rates["ablated"] <= 1


def test_a_stopped_generate_goes_on_where_it_was(found, tmp_path, capsys, monkeypatch, harmful):
    monkeypatch.setattr(completing, "load_prompts", lambda name, **_: {"test": harmful.test[:6]})
    whole, path = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    short = ["--max-new-tokens", "12"]
    words = ["generate", "organism", "harmful", *short, "--ablate", str(found / "d.safetensors"), "-o"]
    main([*words, str(whole)])
    real, skipped = completing.generate, []

    def stopped(chat, prompts, *, report, **rest):
        report(dict(enumerate(real(chat, prompts[:2]))))
        raise KeyboardInterrupt

    def watched(chat, prompts, *, skip, **rest):
        skipped.append(set(skip))
        return real(chat, prompts, skip=skip, **rest)

    monkeypatch.setattr(completing, "generate", stopped)
    assert call(capsys, *words, str(path))[0] == 130
    monkeypatch.setattr(completing, "generate", watched)
    assert call(capsys, *words, str(path)) == (0, "", f"6 answers: {path}\n")
    assert path.read_bytes() == whole.read_bytes()

    monkeypatch.setattr(completing, "generate", stopped)  # under another direction nothing is taken over
    assert call(capsys, *words, str(path))[0] == 130
    monkeypatch.setattr(completing, "generate", watched)
    main(["generate", "organism", "harmful", *short, "-o", str(path)])
    assert skipped == [{0, 1}, set()]


def test_answers_are_as_short_and_under_the_system_prompt_as_asked(found, tmp_path, capsys, monkeypatch, harmful):
    monkeypatch.setattr(completing, "load_prompts", lambda name, **_: {"test": harmful.test[:3]})
    path, direction = tmp_path / "a.jsonl", str(found / "d.safetensors")
    main(["generate", "organism", "harmful", "-o", str(path), "--max-new-tokens", "3"])
    assert [(row["tokens"], row["finished"]) for row in read_rows(path)] == [(3, False)] * 3
    assert capsys.readouterr().err == f"3 answers: {path}\n"
    ask = ["ask", "organism", harmful.test[0].instruction, "--direction", direction]
    long, short = data(capsys, *ask), data(capsys, *ask, "--max-new-tokens", "3")
    assert all(long[name].startswith(short[name]) and len(short[name]) < len(long[name]) for name in long)
    code, _, err = call(capsys, *ask, "--max-new-tokens", "0")
    assert code == 1
    assert "max_new_tokens is 0" in err

    seen = []
    monkeypatch.setattr(completing, "generate", lambda chat, *_, **__: seen.append(chat.system))
    main(["generate", "organism", "harmful", "-o", str(path), "--system", "Be brief."])
    assert seen == ["Be brief."]


def test_flags_win_over_the_config_file(tmp_path, capsys, monkeypatch):
    from refusal import pipeline

    seen = []

    def stop(config):
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", stop)
    (tmp_path / "run.toml").write_text('model = "some/model"\nn_test = 7\nn_val = 5\ncoefficients = [2.0]\n')
    for words in (["--config", str(tmp_path / "run.toml")], [f"--config={tmp_path / 'run.toml'}"]):
        assert call(capsys, "run", *words, "--n-test", "9", "--harmful-coefficient", "-2.5")[0] == 130
    assert seen[0] == seen[1]
    config = seen[0]
    assert (config.model, config.n_test, config.n_val, config.n_train) == ("some/model", 9, 5, 128)
    assert (config.coefficients, config.harmful_coefficient) == ((2.0,), -2.5)
    assert call(capsys, "run", "other/model", "--config", str(tmp_path / "run.toml"))[0] == 130
    assert seen[2].model == "other/model"


def test_run_prints_its_results_and_where_the_report_is(tmp_path, capsys):
    config = small_runs.config(tmp_path, draws=0)
    toml = "\n".join(
        f"{name} = {json.dumps(str(value) if name == 'out' else value)}"
        for name, value in config.science().items()
        if value is not None and value != ()
    )
    (tmp_path / "run.toml").write_text(toml)
    words = ["run", "--config", str(tmp_path / "run.toml"), "--out", str(config.out), "--no-mechanism"]
    code, out, err = call(capsys, *words, "--json")
    assert code == 0, err
    assert json.loads(out) == read_json(config.out / "results.json")
    assert f"Report: {config.out}/report.html" in err
    assert (config.out / "report.html").exists()
    *_, head, explore, ask, verify = err.splitlines()
    assert head == "Worth trying next:"
    assert explore == f"  refusal explore {config.out}"
    prompt = read_rows(config.out / "completions" / "harmless.none.jsonl")[0]["prompt"]
    assert shlex.split(ask)[1:] == [
        *("ask", config.model, prompt),
        *("--direction", f"{config.out}/direction.safetensors"),
    ]
    assert verify == f"  refusal verify {config.out}"
    assert {shlex.split(line)[1] for line in (explore, ask, verify)} <= COMMANDS.keys()
    code, out, _ = call(capsys, *words)
    assert code == 0
    assert "random ablation" in out


def test_the_known_overlap_of_evaluation_sets_is_reported(capsys):
    folder = Path(__file__).parents[2] / "shared" / "datasets" / "official"
    if not folder.exists():
        pytest.skip(f"the official dataset files are not in {folder}")
    main(["prompts", "--overlaps", "--prompts-dir", str(folder), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [(row["first"], row["second"], row["count"]) for row in rows] == [
        ("jailbreakbench", "harmbench", 7),
        ("jailbreakbench", "strongreject", 3),
    ]


def test_a_small_file_of_prompts_is_completed_whole(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("Explain how to brew a red jam.\nWhat is a warm lily made of?\n")
    main(["generate", "organism", str(tmp_path / "mine.txt"), "-o", str(tmp_path / "out.jsonl")])
    assert len(read_rows(tmp_path / "out.jsonl")) == 2
