"""Completions from a server: what is asked, what is tried again, what is refused, and that nothing finished is lost."""

import asyncio
import json
import os
import signal
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.util import find_spec

import httpx2
import pytest

from loopback import Loopback, answer, completion, echo, hang, hang_up, reply
from refusal import served
from refusal.cli import main
from refusal.errors import BadInput, BadSetting, RefusalError, TooFewPrompts, Unavailable
from refusal.generation import Completion
from refusal.judges.read import read_completions
from refusal.prompts import Prompt
from refusal.records import read_rows
from refusal.served import KEY, TRIES, Server

PROMPTS = [f"prompt {i}" for i in range(6)]
SECRET = "sk-not-to-be-shown"
TLS = ssl.create_default_context()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """No key, no proxy between us and loopback, waits that take no time, and certificates that are read once."""
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(served, "FIRST_WAIT", 0.001)
    monkeypatch.setattr("ssl.create_default_context", lambda *_, **__: TLS)


@pytest.fixture
def loopback():
    with Loopback() as server:
        yield server


def ask(loopback: Loopback, prompts=PROMPTS, *, timeout: float = 20.0, concurrency: int = 1, **options):
    return served.generate(Server(loopback.url, "small", timeout, concurrency), prompts, **options)


# --- what is asked and what is read -----------------------------------------------------------------------------


def test_every_prompt_is_one_greedy_chat(loopback):
    assert ask(loopback, ["Why?", Prompt("How?", "questions")], max_new_tokens=7) == [
        Completion("Why?", "You said: Why?", None, 5, True),
        Completion("How?", "You said: How?", "questions", 5, True),
    ]
    asked = {"model": "small", "temperature": 0, "max_tokens": 7}
    assert loopback.requests == [
        {**asked, "messages": [{"role": "user", "content": text}]} for text in ("Why?", "How?")
    ]
    assert loopback.keys == [None, None]


def test_the_system_prompt_comes_first_and_512_tokens_are_the_default(loopback):
    ask(loopback, ["Why?"], system="Be brief.")
    assert loopback.requests[0]["max_tokens"] == 512
    assert [message["role"] for message in loopback.requests[0]["messages"]] == ["system", "user"]
    assert loopback.requests[0]["messages"][0]["content"] == "Be brief."


def test_the_record_says_how_the_answer_ended_and_how_long_it_was(loopback):
    loopback.script = [
        answer(" cut \n", reason="length", tokens=9),
        answer("", tokens=1),  # the end token alone
        reply(json.dumps({key: value for key, value in completion("x").items() if key != "usage"})),
    ]
    found = ask(loopback, PROMPTS[:3])
    assert [(c.response, c.tokens, c.finished) for c in found] == [("cut", 9, False), ("", 1, True), ("x", 0, True)]


def test_answers_stand_in_the_order_of_the_prompts_and_few_are_asked_at_once(loopback):
    loopback.script = [answer(late=late) for late in (0.3, 0.2, 0.1, 0.05)]
    seen = []
    found = ask(loopback, concurrency=3, report=lambda new: seen.extend(new))
    assert [c.response for c in found] == [echo(prompt) for prompt in PROMPTS]
    assert sorted(seen) == list(range(6))
    assert seen != sorted(seen)
    assert loopback.most_at_once == 3


def test_what_is_known_is_not_asked_again(loopback):
    known = {1: Completion("prompt 1", "known"), 4: Completion("prompt 4", "known")}
    found = ask(loopback, skip=known)
    assert [i for i, c in enumerate(found) if c.response == "known"] == [1, 4]
    assert len(loopback.requests) == 4
    assert ask(loopback, skip=dict(enumerate(found))) == found
    assert len(loopback.requests) == 4


def test_it_works_inside_a_running_event_loop_as_in_a_notebook(loopback):
    async def cell():
        return ask(loopback)

    assert len(asyncio.run(cell())) == 6


@pytest.mark.parametrize(("prompts", "error"), [([], TooFewPrompts), ("Why?", BadInput)])
def test_what_is_no_list_of_prompts_is_refused(loopback, prompts, error):
    with pytest.raises(error):
        ask(loopback, prompts)
    assert loopback.requests == []


# --- what may pass ----------------------------------------------------------------------------------------------

PATIENCE = 0.5  # seconds, where silence is what is tested
MAY_PASS = {
    "408": (reply("{}", 408), "HTTP 408"),
    "429": (reply('{"error": {"message": "slow down"}}', 429), "HTTP 429: slow down"),
    "500": (reply('{"error": "out of memory"}', 500), "HTTP 500: out of memory"),
    "503, a page": (reply("<html>\x1b[31m\nbusy</html>", 503), "HTTP 503: <html>[31m busy</html>"),
    "a page": (reply("<html>Welcome</html>"), "no chat completion: <html>Welcome</html>"),
    "nothing": (reply(""), "no chat completion: nothing"),
    "half of the JSON": (reply(json.dumps(completion("x"))[:40]), "no chat completion: "),
    "half of the body": (reply(json.dumps(completion("x")), promised=99), "the connection failed"),
    "no word": (hang_up, "the connection failed"),
    "silence": (hang, f"no answer within {PATIENCE} s"),
    "a list": (reply("[]"), "no chat completion"),
    "no choices": (reply('{"object": "chat.completion"}'), "no chat completion"),
    "an empty list of choices": (reply('{"choices": []}'), "no chat completion"),
    "no message": (reply('{"choices": [{"finish_reason": "stop", "message": null}]}'), "no chat completion"),
    "no reason": (reply('{"choices": [{"message": {"content": "x"}}]}'), "no chat completion"),
    "parts for text": (answer([{"type": "text", "text": "x"}]), "no chat completion"),
    "a count that is none": (answer("x", tokens="many"), "no chat completion"),
    "half of a character": (answer("\ud83d"), "no chat completion"),
    "None": (answer(None), "the answer holds no text"),
    "no text, of no token": (answer("", tokens=0), "the answer holds no text and is of no token"),
}


@pytest.mark.parametrize(("act", "why"), MAY_PASS.values(), ids=MAY_PASS)
def test_a_failure_that_passes_costs_another_try_and_nothing_else(loopback, act, why):
    loopback.script = [answer(), act]
    said, start = [], time.perf_counter()
    found = ask(loopback, PROMPTS[:3], timeout=PATIENCE if act is hang else 20.0, say=said.append)
    assert [c.response for c in found] == [echo(prompt) for prompt in PROMPTS[:3]]
    assert [body["messages"][0]["content"] for body in loopback.requests] == [PROMPTS[i] for i in (0, 1, 1, 2)]
    assert len(said) == 1
    assert why in said[0]
    assert "try 2 of 6 in 0.0 s" in said[0]
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("case", ["500", "a page", "half of the body", "no word", "silence", "None"])
def test_a_failure_that_stays_is_one_error_and_finished_completions_are_kept(loopback, case, monkeypatch):
    monkeypatch.setattr(served, "TRIES", tries := 3)
    act, why = MAY_PASS[case]
    loopback.script = [answer(), answer()]
    loopback.usual = act
    kept = {}
    with pytest.raises(Unavailable, match=f"did not complete a prompt in {tries} tries") as error:
        ask(loopback, timeout=PATIENCE if act is hang else 20.0, report=kept.update)
    assert why in str(error.value)
    assert "finished completions are kept" in str(error.value)
    assert [kept[i].response for i in kept] == [echo(prompt) for prompt in PROMPTS[:2]]
    assert len(loopback.requests) == 2 + tries


def test_waits_grow_and_differ(loopback, monkeypatch):
    monkeypatch.setattr(served, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(served, "LONGEST_WAIT", 0.1)
    loopback.usual = reply("", 500)
    said = []
    with pytest.raises(Unavailable):
        ask(loopback, ["Why?"], say=said.append)
    waits = [float(text.split()[-2]) for text in said]
    assert len(waits) == TRIES - 1
    assert waits[-1] <= 0.1
    assert waits[-1] > waits[0]


def test_a_server_that_goes_away_in_between_is_waited_for_and_one_that_never_was_is_not(loopback):
    def last(handler):
        answer()(handler)
        handler.close_connection = True
        handler.server.socket.close()

    loopback.script = [answer(), last]
    kept, said = {}, []
    with pytest.raises(Unavailable, match="in 6 tries: the connection failed"):
        ask(loopback, report=kept.update, say=said.append)
    assert list(kept) == [0, 1]
    assert len(said) == TRIES - 1

    said.clear()
    with pytest.raises(Unavailable, match=r"There is no server at http://127\.0\.0\.1:\d+/v1 .*Start it"):
        ask(loopback, say=said.append)
    assert said == []


def test_the_server_says_how_long_to_wait(loopback):
    loopback.script = [reply("", 429, Retry_After="0.4")]
    start = time.perf_counter()
    assert ask(loopback, ["Why?"])[0].response == "You said: Why?"
    assert 0.4 <= time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("3", 3, 3),
        *((nonsense, 0, 0) for nonsense in ("", "-5", "nan", "soon", "Mon, 99 Foo")),
    ],
)
def test_the_wait_is_a_number(asked, least, most):
    assert least <= served._retry_after(httpx2.Response(503, headers={"Retry-After": asked})) <= most


@pytest.mark.parametrize(("ahead", "least", "most"), [(500, 300, 500), (-500, 0, 0)])
def test_the_wait_may_be_a_date(ahead, least, most):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    assert least <= served._retry_after(httpx2.Response(503, headers={"Retry-After": date})) <= most


def test_a_server_that_asks_to_wait_too_long_is_left(loopback):
    loopback.script = [answer(), reply("", 429, Retry_After="7200")]
    with pytest.raises(Unavailable, match="asks to wait 7200 s"):
        ask(loopback)
    assert len(loopback.requests) == 2


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (400, '{"error": {"message": "too long"}}', "HTTP 400: too long"),
        (404, '{"object": "error", "message": "no model small"}', "HTTP 404: no model small"),
        (404, "<h1>Not Found</h1>", "HTTP 404: <h1>Not Found</h1>"),
        (422, '{"detail": "Unexpected fields"}', "HTTP 422: Unexpected fields"),
        (418, "", "HTTP 418"),
        (301, "", "HTTP 301"),
        (400, "[1]", "HTTP 400: [1]"),
        (400, "x" * 5000, "HTTP 400: " + "x" * 200 + "…"),
    ],
)
def test_what_the_server_refuses_is_one_sentence_at_once(loopback, status, body, shown):
    loopback.usual = reply(body, status)
    with pytest.raises(BadSetting) as error:
        ask(loopback, concurrency=1)
    assert shown in str(error.value)
    assert "\n" not in str(error.value)
    assert "the model's name 'small': it has the models small, large." in str(error.value)
    assert len(loopback.requests) == 1


@pytest.mark.parametrize("models", [reply("", 404), reply("<html>"), reply('{"data": []}'), reply('{"data": [1]}')])
def test_a_server_need_not_say_which_models_it_has(loopback, models):
    loopback.models, loopback.usual = models, reply("", 404)
    with pytest.raises(BadSetting, match="it does not say which models it has"):
        ask(loopback)


def test_an_address_of_something_else_is_refused(loopback):
    with pytest.raises(BadSetting, match=r"/other refuses the request \(HTTP 404: <h1>Not Found"):
        served.generate(Server(loopback.url + "/other", "small"), PROMPTS)


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (answer("x", reason="content_filter"), "for the reason 'content_filter'"),
        (answer(None, reason="tool_calls"), "for the reason 'tool_calls'"),
        (answer("x", reason=None), "for the reason 'None'"),
        (answer("x", reason={}), "for the reason '{}'"),
        (answer(None, reason="length", reasoning_content="Hm."), "as reasoning"),
        (answer("", reasoning="Hm."), "as reasoning"),
    ],
)
def test_a_text_that_is_not_the_models_whole_answer_is_refused(loopback, act, why):
    loopback.script = [answer(), act]
    kept = {}
    with pytest.raises(BadSetting, match=why):
        ask(loopback, report=kept.update)
    assert list(kept) == [0]
    assert len(loopback.requests) == 2


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://host:port", "http://host:99999", "http://[::1", "x"]
)
def test_an_address_that_cannot_be_is_refused(url):
    with pytest.raises(BadSetting, match="is no server's address"):
        Server(url, "small")


@pytest.mark.parametrize("url", [f"http://me:{SECRET}@host", f"http://host/v1?key={SECRET}", f"http://h/#{SECRET}"])
def test_an_address_with_a_secret_is_refused_and_not_shown(url):
    with pytest.raises(BadSetting, match=KEY) as error:
        Server(url, "small")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/v1/", "http://host:8000/v1"),
        ("https://host/openai/v1/chat/completions", "https://host/openai/v1"),
        ("http://[::1]:80", "http://[::1]:80/v1"),
    ],
)
def test_a_bare_address_gets_the_usual_path(url, full):
    assert Server(url, "small").record() == {"server": full, "server_model": "small"}


@pytest.mark.parametrize("numbers", [{"timeout": 0.0}, {"timeout": float("nan")}, {"concurrency": 0}])
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(BadSetting, match=f"{next(iter(numbers))} is"):
        Server("http://host", "small", **numbers)


def test_no_answer_is_shorter_than_one_token(loopback):
    with pytest.raises(BadSetting, match="max_new_tokens is 0"):
        ask(loopback, max_new_tokens=0)


# --- the key ----------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_never_shown(loopback, monkeypatch):
    monkeypatch.setenv(KEY, SECRET + "\n")
    loopback.script = [answer(), reply(f'{{"error": {{"message": "wrong key {SECRET} here"}}}}', 401)]
    with pytest.raises(BadSetting, match=rf"HTTP 401: wrong key … here\)\. Put its API key into .*{KEY}, which is set"):
        ask(loopback)
    assert loopback.keys == [f"Bearer {SECRET}"] * 2


def test_a_missing_key_is_named(loopback):
    loopback.usual = reply("", 403)
    with pytest.raises(BadSetting, match=rf"Put its API key into the environment variable {KEY}, which is not set"):
        ask(loopback)


def test_a_key_that_cannot_be_sent_is_refused(loopback, monkeypatch):
    monkeypatch.setenv(KEY, "“" + SECRET + "”")
    with pytest.raises(BadSetting, match="holds characters that no key has") as error:
        ask(loopback)
    assert SECRET not in str(error.value)


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def command(loopback, tmp_path):
    """The words of a command that completes six prompts through the server, and the file it writes."""
    (tmp_path / "mine.txt").write_text("\n".join(PROMPTS) + "\n")
    output = tmp_path / "out.jsonl"
    words = ["generate", "small", str(tmp_path / "mine.txt"), "-o", str(output), "--server", loopback.url]
    return [*words, "--concurrency", "1"], output


def stopped(words: list[str]) -> object:
    with pytest.raises(SystemExit) as stop:
        main(words)
    return stop.value.code


def test_the_command_writes_completions_that_say_where_they_are_from(loopback, command, monkeypatch):
    monkeypatch.setenv(KEY, SECRET)
    words, output = command
    main([*words, "--max-new-tokens", "9", "--system", "Be brief."])
    assert [row["response"] for row in read_rows(output)] == [echo(prompt) for prompt in PROMPTS]
    assert all(row["server"] == loopback.url + "/v1" and row["server_model"] == "small" for row in read_rows(output))
    assert [c.prompt for c in read_completions(output)] == PROMPTS
    assert SECRET not in output.read_text()
    assert {body["max_tokens"] for body in loopback.requests} == {9}
    assert {body["messages"][0]["content"] for body in loopback.requests} == {"Be brief."}
    main([*words, "--server-model", "large"])
    assert {body["model"] for body in loopback.requests[6:]} == {"large"}


def test_a_stopped_command_goes_on_where_it_was(loopback, command, capsys):
    words, output = command
    main(words)
    assert capsys.readouterr().err == f"6 answers: {output}\n"
    whole = output.read_bytes()
    output.unlink()
    loopback.requests.clear()
    loopback.script = [answer(), answer(), reply("", 400)]
    assert stopped(words) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not output.exists()
    assert len(loopback.requests) == 3
    main(words)
    assert output.read_bytes() == whole
    assert len(loopback.requests) == 3 + 4
    assert list(output.parent.glob(".*")) == []


@pytest.fixture
def ctrl_c():
    """SIGINT as at a keyboard: a process that was started in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_what_is_finished_and_does_not_wait_for_a_server_that_hangs(loopback, command, capsys):
    def interrupt(handler):
        os.kill(os.getpid(), signal.SIGINT)
        hang(handler)

    words, output = command
    loopback.script = [answer(), answer(), interrupt]
    start = time.perf_counter()
    assert stopped(words) == 130
    assert time.perf_counter() - start < 10
    assert "What was finished is kept" in capsys.readouterr().err
    main(words)
    assert [c.prompt for c in read_completions(output)] == PROMPTS
    assert len(loopback.requests) == 3 + 4


def test_completions_of_another_server_model_or_limit_are_not_taken_over(loopback, command):
    words, output = command
    loopback.script = [answer("old"), answer("old"), reply("", 400)]
    assert stopped(words) == 1
    main([*words, "--max-new-tokens", "9"])
    assert "old" not in output.read_text()


def test_the_model_of_a_server_cannot_be_intervened_on_from_here(loopback, command, capsys, tmp_path):
    words, _ = command
    (tmp_path / "direction.safetensors").touch()
    for flag in ("--ablate", "--add"):
        assert stopped([*words, flag, str(tmp_path / "direction.safetensors")]) == 1
        assert "Export it" in capsys.readouterr().err
    assert loopback.requests == []


# --- for real ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers_serve():
    """`transformers serve` with the bundled chat model: its address and the model's name there.

    What the command runs, in a thread of this process: another one would import torch for most of the test's time.
    """
    missing = [name for name in ("fastapi", "uvicorn", "openai") if not find_spec(name)]
    if missing:
        pytest.skip(f"transformers serve needs {', '.join(missing)}: pip install 'transformers[serving]'")
    from transformers.cli.serve import Serve

    from refusal.organism import checkpoint

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name, url = str(checkpoint("chat")), f"http://127.0.0.1:{port}"
    serve = Serve(force_model=name, device="cpu", dtype="float32", host="127.0.0.1", port=port, non_blocking=True)
    try:
        until = time.monotonic() + 60
        while not _healthy(url):
            assert time.monotonic() < until
            time.sleep(0.05)
        yield url, name
    finally:
        serve.kill_server()


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_transformers_serve_says_what_the_model_says_here(transformers_serve, bundled, harmful, harmless):
    from refusal.generation import generate

    url, name = transformers_serve
    prompts = [*harmful.test[:4], *harmless.test[:4]]

    def here(prompts, **how):  # a server does not say what its template opens
        return [replace(one, thinking=None) for one in generate(bundled, prompts, **how)]

    found = served.generate(Server(url, name), prompts)
    assert found == here(prompts)
    assert all(c.finished and c.response for c in found)

    cut = served.generate(Server(url, name), prompts[:2], max_new_tokens=4)
    assert cut == here(prompts[:2], max_new_tokens=4)
    assert not any(c.finished for c in cut)

    with pytest.raises(RefusalError, match=r"refuses the request .*the model's name 'another'"):
        served.generate(Server(url, "another"), prompts)
