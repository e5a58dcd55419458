"""The explorer without a browser: what it reads, the markup it makes, who may see it, and how it opens."""

import asyncio
import base64
import re
import shutil
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import explorer_run
import run_folder
import tiny
from refusal.cli import main
from refusal.direction import Candidates, Direction
from refusal.errors import BadRunFolder, BadSetting, Unavailable
from refusal.explorer import exporting, grid, opening, recorded, serving
from refusal.explorer.grid import Picked
from refusal.explorer.markup import MOST, render, shown
from refusal.findings import read_findings
from refusal.formats import number
from refusal.records import read_json, write_json
from refusal.report import render_measured
from refusal.report.content import page_values
from refusal.report.picture import pictures
from refusal.rule import SELECTED

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>{{constructor}}${alert(1)}`"


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return run_folder.build(tmp_path_factory.mktemp("made-up"), response=HOSTILE + "\x1b[31m\u202e")


@pytest.fixture(scope="module")
def records(made_up):
    return read_findings(made_up)


@pytest.fixture(scope="module")
def run(tmp_path_factory, bundled, harmful, harmless):
    return explorer_run.build(tmp_path_factory.mktemp("run"), bundled, harmful, harmless)


# --- text ----------------------------------------------------------------------------------------------------------


def test_text_is_shown_without_what_could_act_or_turn_it_around():
    assert shown("a\n\tb é 你好") == "a\n\tb é 你好"
    assert shown("\x1b[31m\x00\r\u202e\u2066\u200f\ud800") == "\\x1b[31m\\x00\\r\\u202e\\u2066\\u200f\\ud800"
    assert shown("x" * (MOST + 1_000_000)).endswith("… 1,000,000 more characters")


def test_markup_escapes_text():
    made = render("message", {"text": HOSTILE})
    assert "&lt;script&gt;" in made
    assert not re.search("<script|<img", made)


@pytest.mark.parametrize("name", ["harmful", "harmless"])
def test_no_recorded_text_becomes_markup(records, name):
    made = render("cards", recorded.answers(records, name, recorded.usual(records, name)))
    assert made.count("&lt;script&gt;") == 4 * recorded.PAGE
    assert not re.search("<script|<img|[\x1b\u202e]", made)


# --- what was recorded ---------------------------------------------------------------------------------------------


def test_harmful_prompts_are_folded_and_harmless_ones_are_not(records):
    for name, folds in (("harmful", recorded.PAGE), ("harmless", 0)):
        made = render("cards", recorded.answers(records, name, ["none", "ablation"]))
        assert made.count("<details") == folds
        assert made.count("<article") == 2 * recorded.PAGE


def test_prompts_are_filtered_and_paged(records):
    shown_of = ["none", "ablation", "addition"]
    everything = recorded.answers(records, "harmful", shown_of)
    assert (everything["found"], everything["total"], everything["pages"]) == (run_folder.N, run_folder.N, 8)
    last = recorded.answers(records, "harmful", shown_of, page=99)
    assert [card["number"] for card in last["cards"]] == [36, 37, 38, 39, 40]
    assert last["page"] == last["pages"]
    one = recorded.answers(records, "harmful", shown_of, text="REQUEST 17")
    assert [card["prompt"] for card in one["cards"]] == ["harmful request 17"]
    changed = recorded.answers(records, "harmful", ["none", "addition"], which=recorded.CHANGED)
    assert changed["found"] == 40 - 3  # three are refused under both
    assert recorded.answers(records, "harmful", ["none"], which=recorded.CHANGED)["found"] == 0
    assert recorded.answers(records, "absent", ["none"])["found"] == 0


def test_a_text_that_no_prompt_holds_is_told_and_is_not_that_nothing_was_recorded(records):
    made = render("cards", recorded.answers(records, "harmful", ["none"], text="no such words"))
    assert "No prompt holds this text." in made


def test_a_prompt_that_is_in_the_set_twice_is_shown_twice(records):
    rows = {kind: [*given, given[0]] for kind, given in records.completions["harmful"].items()}
    twice = recorded.answers(replace(records, completions={"harmful": rows}), "harmful", ["none", "ablation"], page=9)
    assert twice["total"] == run_folder.N + 1
    assert [len(card["answers"]) for card in twice["cards"]] == [2]


def test_answers_carry_what_every_judge_said(records):
    (card, *_) = recorded.answers(records, "harmful", ["none", "addition"])["cards"]
    assert [answer["title"] for answer in card["answers"]] == ["No intervention", "Activation addition, c = −1"]
    assert card["answers"][0]["verdicts"][0] == {"judge": "substring", "word": "refused"}
    assert {verdict["judge"] for verdict in card["answers"][0]["verdicts"]} == {"substring", "grammar"}


def test_results_are_the_figures_of_the_report(records):
    made, drawn = render_measured(records), pictures(page_values(records))
    assert made.count("<figure ") == len(drawn)
    for one in drawn:
        assert one.svg in made


def test_a_run_that_has_only_found_its_direction_can_be_browsed(tmp_path):
    folder = run_folder.build(tmp_path / "run")
    for path in [*folder.glob("completions/*"), *(folder / f"{name}.json" for name in ("results", "projections"))]:
        path.unlink()
    (folder / "coefficients.json").unlink()
    with pytest.raises(BadRunFolder, match=r"results\.json"):
        read_findings(folder)
    found = read_findings(folder, partial=True)
    assert not found.results
    assert not found.completions
    assert len(found.selection) == run_folder.POSITIONS * run_folder.LAYERS
    assert opening.open_run(folder, live=False).prompts == ()
    (folder / "selection.jsonl").unlink()
    assert read_findings(folder, partial=True).selection == []


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(BadRunFolder, match="missing"):
        read_findings(tmp_path, partial=True)


def test_a_harmless_prompt_stands_beside_a_harmful_one_and_neither_is_picked():
    prompts = (("harmful", "h0"), ("harmful", "h1"), ("harmless", "o0"), ("harmless", "o1"))
    assert opening.other_half(prompts) == opening.other_half(prompts, "o1") == ("harmful", "h0")
    assert opening.other_half(prompts, "h1") == ("harmless", "o0")
    assert opening.other_half(prompts[:1], "h0") is None
    assert opening.other_half(()) is None


# --- the heat map --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("score", "best"), [("bypass", min), ("induce", max), ("kl", min)])
def test_the_best_candidate_is_darkest_and_the_worst_lightest(records, score, best):
    known = {place: row[score] for place, row in grid.places(records.selection).items() if row[score] is not None}
    cells = [
        cell for line in grid.grid(records.selection, records.tokens, score, None)["lines"] for cell in line["cells"]
    ]
    levels = {(cell["position"], cell["layer"]): cell["level"] for cell in cells}
    assert {place for place, level in levels.items() if level == 1.0} >= {best(known, key=known.__getitem__)}
    worst = (max if best is min else min)(known, key=known.__getitem__)
    assert levels[worst] == 0.0
    assert levels[(-run_folder.POSITIONS, 1)] is None  # not a number


def test_cells_say_what_they_are(records):
    place = grid.chosen_place(records.selection)
    assert place is not None
    made = render("grid", grid.grid(records.selection, records.tokens, "bypass", Picked(place, (-1, 3))))
    cells = re.findall(r"<button.*?</button>", made, re.DOTALL)
    assert len(cells) == run_folder.POSITIONS * run_folder.LAYERS
    (first,) = [cell for cell in cells if " first" in cell]
    assert f'data-position="{place[0]}" data-layer="{place[1]}"' in first
    assert " chosen" in first
    assert 'aria-pressed="true"' in first
    assert 'tabindex="0"' in first  # one stop for the tab key; arrows do the rest
    assert sum('tabindex="0"' in cell for cell in cells) == 1
    assert sum(" second" in cell for cell in cells) == 1
    assert sum("aria-disabled" in cell for cell in cells) == run_folder.POSITIONS  # layer 0 has no difference


def test_facts_are_the_recorded_numbers(records):
    place = grid.chosen_place(records.selection)
    row = grid.places(records.selection)[place]
    facts = grid.facts(row, place, records.tokens)
    assert dict(facts["scores"])["Bypass score"] == number(row["bypass"])
    assert facts["verdict"] == "chosen by the run"
    assert grid.facts(None, (-1, 3), [])["verdict"] == "not recorded"


# --- opening -------------------------------------------------------------------------------------------------------


def test_a_run_opens_with_its_model_its_direction_and_prompts_that_it_never_saw(run, harmful):
    said = []
    subject = opening.open_run(run, say=said.append)
    assert subject.live is not None
    assert subject.picked == Picked(explorer_run.PLACE)
    assert subject.prompts[0] == ("harmful", harmful.test[0].instruction)
    assert said == ["Loading organism ..."]
    assert subject.live.max_new_tokens == explorer_run.LONGEST


def _of_a_model_that_is_not_here(folder):
    write_json(folder / "run.json", read_json(folder / "run.json") | {"model": "no/such"})


def _of_other_weights(folder):
    own = Direction.load(folder / "direction.safetensors")
    origin = {**own.origin, "fingerprint": "0" * 64}
    Direction(own.vector, own.layer, own.position, origin).save(folder / "direction.safetensors")


def _nothing_chosen(folder):
    path = folder / "selection.jsonl"
    path.write_text(path.read_text().replace(f'"{SELECTED}"', '"late layer"'))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_of_a_model_that_is_not_here, "no/such"),
        (lambda folder: (folder / "candidates.safetensors").unlink(), "candidates.safetensors"),
        (_of_other_weights, "has other weights"),
        (_nothing_chosen, "no chosen direction"),
    ],
)
def test_a_run_whose_model_cannot_be_used_is_shown_as_recorded_with_the_reason(tmp_path, run, change, said):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    change(folder)
    subject = opening.open_run(folder)
    assert subject.live is None
    assert said in subject.note
    assert subject.findings.completions


def test_a_model_that_would_have_to_be_fetched_is_asked_for_once_and_in_words(tmp_path, run, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionRefusedError("nobody there")

    folder, said = tmp_path / "run", []
    shutil.copytree(run, folder)
    _of_a_model_that_is_not_here(folder)
    monkeypatch.setattr(opening, "HfApi", lambda: SimpleNamespace(model_info=unreachable))
    note = opening.open_run(folder, say=said.append).note
    assert "cannot be reached (nobody there)" in note
    assert "--records" in said[-1]


def test_without_its_model_nothing_is_loaded(run, monkeypatch):
    monkeypatch.setattr(opening, "load_model", None)
    subject = opening.open_run(run, live=False)
    assert subject.live is None
    assert subject.note == ""


def test_the_direction_of_a_model_is_found_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []

    def find(config):
        asked.append(config.model)
        folder = opening.run_folder(config)
        folder.mkdir(parents=True)
        (folder / "direction.safetensors").touch()

    monkeypatch.setattr(opening.pipeline, "find", find)
    assert opening.find_run() == opening.find_run()
    assert asked == ["organism"]


# --- who may see it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.10"])
def test_this_machine_needs_no_password(host):
    serving.check_address(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_any_other_address_needs_one(host):
    with pytest.raises(BadSetting, match=f"{re.escape(host)} can be reached .* --password"):
        serving.check_address(host, None)
    serving.check_address(host, "secret")
    with pytest.raises(BadSetting, match="password is empty"):
        serving.check_address(host, "")


def asked(app, path: str = "/", **headers: str) -> tuple[int, dict[str, str]]:
    """Ask an app for a page, and return status and headers."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    asyncio.run(app(scope, None, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


async def page(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


def test_only_this_machine_and_the_page_itself_are_answered():
    app = serving.guard(page, public=False, password=None)
    assert asked(app, host="127.0.0.1:7860")[0] == 200
    assert asked(app, host="[::1]:7860", origin="http://[::1]:7860")[0] == 200
    assert asked(app, host="evil.example:7860")[0] == 403  # a name that was pointed here
    assert asked(app, host="127.0.0.1:7860", origin="https://evil.example")[0] == 403  # another page's request
    assert asked(app)[0] == 403


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/upload/", "/openapi.json"])
def test_what_the_page_has_no_use_for_is_not_served(path):
    assert asked(serving.guard(page, public=False, password=None), path, host="localhost")[0] == 404


def test_the_page_may_load_nothing_from_elsewhere():
    status, headers = asked(serving.guard(page, public=False, password=None), host="localhost")
    assert status == 200
    assert "http" not in headers["content-security-policy"]
    assert "connect-src 'self'" in headers["content-security-policy"]


def test_the_password_guards_everything():
    app = serving.guard(page, public=True, password="sécret:x")

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    status, headers = asked(app, host="box:7860")
    assert status == 401
    assert headers["www-authenticate"].startswith("Basic")
    assert asked(app, host="box:7860", authorization=basic("anybody:sécret:x"))[0] == 200
    for wrong in (basic("anybody:secret"), basic(":"), "Basic ###", "Bearer x", basic("anybody")):
        assert asked(app, host="box:7860", authorization=wrong)[0] == 401


def test_a_port_that_is_taken_is_a_message():
    with serving.listen("127.0.0.1", 0) as taken, pytest.raises(Unavailable, match="Give another --port"):
        serving.listen("127.0.0.1", taken.getsockname()[1])


def test_a_port_that_cannot_be_is_a_message():
    with pytest.raises(BadSetting, match="There is no port 99999"):
        serving.listen("127.0.0.1", 99999)


# --- the command ---------------------------------------------------------------------------------------------------


def test_a_missing_gradio_is_a_message(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as stop:
        main(["explore"])
    assert stop.value.code == 1
    assert 'pip install "refusal[explorer]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "Give --password"),
        ([".", "--model", "organism"], "not both"),
        (["--records"], "Give its folder"),
    ],
)
def test_settings_that_cannot_be_are_messages(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["explore", *words])
    assert stop.value.code == 1
    assert said in capsys.readouterr().err


# --- exporting -----------------------------------------------------------------------------------------------------


def test_a_direction_is_saved_as_a_file_that_says_where_it_was_read(tmp_path, run):
    own = Candidates.load(run / "candidates.safetensors").at(*explorer_run.PLACE)
    path = exporting.save_direction(own, tmp_path)
    assert path.name == "direction-layer7-position-4.safetensors"
    assert Direction.load(path).vector.equal(own.vector)


def export(out, direction, *, model="organism", going=lambda: True):
    return list(exporting.export_checkpoint(model, direction, str(out), architecture=None, going=going))


def test_an_export_without_a_folder_fails_in_words():
    assert export(" ", tiny.direction(tiny.shared())) == [("failed", ["There is no folder to write to. Name one."])]


def test_an_export_into_a_folder_that_cannot_be_used_fails_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "COMMAND", None)  # nothing is begun
    (tmp_path / "run.json").touch()
    ((state, (said,)),) = export(tmp_path, tiny.direction(tiny.shared()))
    assert (state, "holds something already, such as run.json" in said) == ("failed", True)
    ((state, (said,)),) = export("/proc/nope", tiny.direction(tiny.shared()))
    assert (state, "/proc/nope cannot be written to" in said) == ("failed", True)


def test_an_export_that_is_no_longer_wanted_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "COMMAND", (sys.executable, "-c", "import time; time.sleep(20)"))
    start = time.monotonic()
    ((state, lines),) = export(tmp_path / "out", tiny.direction(tiny.shared()), going=lambda: False)
    assert time.monotonic() - start < 10  # not when the command ends by itself
    assert state == "stopped"
    assert "goes on from there" in lines[0]


@pytest.mark.parametrize(("code", "state"), [(0, "done"), (1, "failed")])
def test_an_export_tells_what_the_command_said(tmp_path, monkeypatch, code, state):
    said = f"import sys; print('coverage  complete'); print('refusal: no such', file=sys.stderr); sys.exit({code})"
    monkeypatch.setattr(exporting, "COMMAND", (sys.executable, "-c", said))
    monkeypatch.setattr(exporting, "PACE", 0.01)
    *working, (end, lines) = export(tmp_path / "out", tiny.direction(tiny.shared()))
    assert end == state
    assert {name for name, _ in working} <= {"working"}
    assert lines[-1] == ("coverage complete" if code == 0 else "no such")
