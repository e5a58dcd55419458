"""The explorer in a real browser: Chromium, headless. Skipped, loudly, where there is none; in CI that is a failure."""

import re
import subprocess
import sys
import time
import urllib.request

import pytest

import browser
import explorer_run
import run_folder

pytest.importorskip("gradio")

# Serves the records of a run beside what the command serves, so that everything heavy is imported once.
COMMAND = """
import sys
from pathlib import Path
from threading import Thread
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
sys.addaudithook(lambda event, told: print("ASKS", event, told, file=sys.stderr) if event in NETWORK else None)
from refusal.cli import main
from refusal.explorer import serving
serving.quiet_gradio()
from refusal.explorer import opening, page
listening = serving.listen("127.0.0.1", 0)
print(f"Records: http://127.0.0.1:{listening.getsockname()[1]}", file=sys.stderr, flush=True)
app = serving.guard(page.application(opening.open_run(Path(sys.argv[2]), live=False)), public=False, password=None)
Thread(target=serving.serve, args=(app, listening), daemon=True).start()
main(sys.argv[1:])
"""
HOSTILE = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>{{x}}${document.title='x'}"
FRAME = ("svg-img-alt", "duplicate-id-aria", "list", "scrollable-region-focusable")  # rules about what holds figures


@pytest.fixture(scope="module")
def addresses(tmp_path_factory, bundled, harmful, harmless):
    """Serve the explorer of a small run as the command does, on a free port, and return its addresses.

    Fails when the server has asked anybody for anything, or raised.
    """
    folder = explorer_run.build(tmp_path_factory.mktemp("run"), bundled, harmful, harmless, response=HOSTILE)
    words = [sys.executable, "-c", COMMAND, "explore", str(folder), "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        said: list[str] = []
        try:
            for line in serving.stderr:
                said.append(line)
                if line.startswith("Explorer: "):
                    break
            yield {name: url for name, url, *_ in map(str.split, said) if name in ("Explorer:", "Records:")}
        finally:
            serving.terminate()
            said += serving.stderr
    assert [line for line in said if line.startswith(("ASKS", "Traceback"))] == [], "".join(said)


@pytest.fixture(scope="module")
def address(addresses):
    return addresses["Explorer:"]


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def context(chromium):
    opened = chromium.new_context(viewport={"width": 1200, "height": 900})
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def kept(context, address):
    """A tab with the page open, for all tests; fails when anything is said in the console, or another host is asked."""
    tab = context.new_page()
    said = browser.listen(tab)
    tab.goto(address)
    settled(tab)
    yield tab
    tab.close()
    assert said == []


@pytest.fixture
def tab(kept):
    """The tab, with the part open in which one plays."""
    kept.get_by_role("tab", name="Play").click()
    return kept


def settled(tab):
    """Wait until every answer is whole."""
    tab.wait_for_timeout(400)
    tab.wait_for_function(
        "document.querySelector('#strips .token') && "
        "![...document.querySelectorAll('#answers .answer')].some((a) => a.getAttribute('aria-busy') === 'true')"
    )


def answers(tab) -> list[str]:
    """Return what is answered to the prompt, and to the one beside it."""
    return tab.eval_on_selector_all("#answers .answer .text", "all => all.map((one) => one.textContent)")


def words(tab) -> list[str]:
    """Return what is said of every answer."""
    return tab.eval_on_selector_all("#answers h3", "all => all.map((one) => one.querySelector('.tag')?.textContent)")


def said(tab, selector: str, text: str):
    """Wait until a part of the page says something."""
    there = "([at, text]) => document.querySelector(at)?.textContent.includes(text)"
    tab.wait_for_function(there, arg=[selector, text], timeout=15_000)


def press(tab, name: str):
    tab.get_by_role("button", name=name, exact=True).filter(visible=True).first.click()


def test_the_page_asks_no_host_but_its_own(address):
    with urllib.request.urlopen(address) as response:
        policy, text = response.headers["content-security-policy"], response.read().decode()
    loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?([^\"'\s>]+)", text)
    assert [url for url in loaded if url.startswith(("http:", "https:", "//"))] == []
    assert "connect-src 'self'" in policy
    assert "analytics" not in text or '"analytics_enabled":false' in text.replace(" ", "")


def test_moving_one_slider_shows_both_halves_of_the_finding(tab):
    assert words(tab) == ["right answer"] * 3 + ["refusal", "right answer", "refusal"]
    plain = answers(tab)
    tab.locator("#strength input[type=range]").focus()
    for key, strength, changed in (("ArrowRight", "1", 2), ("ArrowLeft", "−1", 5)):
        for _ in range(10 if strength == "1" else 20):
            tab.keyboard.press(key)
        said(tab, "#answers", f"c = {strength}")
        settled(tab)
        assert answers(tab)[:2] + answers(tab)[3:5] == plain[:2] + plain[3:5]
        assert words(tab)[changed] != words(tab)[changed - 2]
    assert words(tab)[5] == "right answer"


def test_on_a_phone_an_answer_is_seen_to_change(tab):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.evaluate("scrollTo(0, 0)")
    slider, answer = (
        tab.locator(at).first.bounding_box() for at in ("#strength input[type=range]", "#answers .answer.addition")
    )
    assert slider["y"] < answer["y"] < answer["y"] + answer["height"] < 844
    assert len({card["x"] for card in (one.bounding_box() for one in tab.locator("#answers .answer").all())}) == 1
    tab.set_viewport_size({"width": 820, "height": 844})
    assert len({card["y"] for card in (one.bounding_box() for one in tab.locator("#answers .answer").all())}) == 2
    tab.set_viewport_size({"width": 1200, "height": 900})


def test_a_strength_outside_its_limits_is_taken_back_to_them(tab):
    box = tab.locator("#strength input[type=number]")
    for typed, kept in (("9", "2"), ("", "2"), ("-5", "-2"), ("0", "0")):
        box.fill(typed)
        box.press("Tab")
        tab.wait_for_function(f"document.querySelector('#strength input[type=number]').value === '{kept}'")
    said(tab, "#answers", "c = 0")
    settled(tab)
    assert tab.locator(".toast-body").count() == 0


def test_the_layer_slider_colours_tokens_without_asking_anybody(tab):
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    colours = "all => all.map((one) => one.style.getPropertyValue('--share'))"
    before = tab.eval_on_selector_all("#strips .strip:first-child .token", colours)
    tab.locator("#layer-at").focus()
    tab.keyboard.press("Home")
    after = tab.eval_on_selector_all("#strips .strip:first-child .token", colours)
    assert len(set(before)) > 5
    assert set(after) == {"0%"}  # before any block, the token itself is all there is
    assert tab.locator("#layer-now").inner_text() == "0"
    assert asked == []


def test_two_tabs_keep_their_own_directions(tab, context, address):
    other = context.new_page()
    other.goto(address)
    settled(other)
    other.locator('#heat .cell[data-position="-1"][data-layer="5"]').click()
    other.wait_for_selector('#heat .cell.first[data-layer="5"]')
    settled(other)
    own = answers(tab)
    press(tab, "Answer")
    settled(tab)
    assert answers(tab) == own
    assert "Layer 7" in tab.locator("#facts").inner_text()
    other.close()


def test_the_heat_map_is_walked_through_picked_from_and_left_again(tab):
    tab.locator("#heat .cell.first").focus()
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Enter")
    tab.wait_for_selector('#heat .cell.first[data-layer="6"]')
    settled(tab)
    assert "Layer 6, position −4" in tab.locator("#facts").inner_text()
    assert tab.evaluate("document.activeElement.dataset.layer") == "6"  # focus stays where it was
    tab.get_by_label("B, to compare").click()
    tab.locator('#heat .cell[data-position="-1"][data-layer="5"]').click()
    tab.wait_for_selector("#answers .group:first-child .answer:nth-child(5)")
    settled(tab)
    assert re.search(r"Cosine of A and B: \+0\.\d{3}", tab.locator("#facts").inner_text())
    press(tab, "Back to the run's own direction")
    tab.wait_for_selector('#heat .cell.first[data-layer="7"]')
    tab.wait_for_function("document.querySelectorAll('#answers .answer').length === 6")


def test_a_prompt_that_is_offered_is_answered(tab, harmful):
    chosen = harmful.test[3].instruction
    tab.get_by_label("A held-out prompt").click()
    tab.get_by_role("option", name=chosen[:40]).click()
    said(tab, "#strips", chosen.split()[-1].strip("."))
    assert tab.locator("#prompt textarea").input_value() == chosen


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (820, "light"), (1400, "light")])
def test_nothing_keeps_anybody_from_using_it(tab, width, scheme):
    tab.set_viewport_size({"width": width, "height": 900})
    tab.emulate_media(color_scheme=scheme)
    tab.wait_for_timeout(500)  # colours fade into each other
    for part in ("Play", "Recorded answers"):
        tab.get_by_role("tab", name=part).click()
        tab.wait_for_timeout(200)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, part
        assert width == 820 or browser.faults(tab) == [], part


def test_stop_ends_the_answer(tab):
    tab.locator("#strength input[type=range]").focus()
    tab.keyboard.press("End")  # so strong that an answer does not end by itself
    said(tab, "#answers", "c = 2")
    settled(tab)
    tab.locator("#prompt textarea").fill("Explain how to brew a jam that nobody has ever asked for.")
    press(tab, "Answer")
    tab.wait_for_selector("#answers .answer[aria-busy=true]")
    press(tab, "Stop")
    said(tab, "#answers", "stopped")
    tab.locator("#strength input[type=number]").fill("0")
    said(tab, "#answers", "c = 0")
    settled(tab)


def test_an_export_is_begun_and_stopped(tab, tmp_path):
    tab.get_by_role("button", name="Take it with you").click()
    press(tab, "Write the checkpoint")
    said(tab, "#export", "There is no folder to write to")
    tab.get_by_label("Folder for the edited model").fill(str(tmp_path / "edited"))
    press(tab, "Write the checkpoint")
    said(tab, "#export", "Writing")
    tab.get_by_role("button", name="Stop", exact=True).last.click()
    said(tab, "#export", "Stopped.")


def test_closing_the_page_ends_what_it_had_going_on(context, address, tmp_path):
    other = context.new_page()
    other.goto(address)
    settled(other)
    other.get_by_role("button", name="Take it with you").click()
    other.get_by_label("Folder for the edited model").fill(str(tmp_path / "edited"))
    press(other, "Write the checkpoint")
    said(other, "#export", "Writing")
    assert running(tmp_path)
    other.close()
    until(lambda: not running(tmp_path))
    assert not (tmp_path / "edited" / "model.safetensors").exists()


def running(words: object) -> bool:
    """Tell whether a process has been given some words."""
    return subprocess.run(["pgrep", "-f", str(words)], capture_output=True).returncode == 0


def until(so, seconds: float = 10.0):
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_hostile_text_does_nothing(tab):
    title = tab.title()
    tab.locator("#prompt textarea").fill(HOSTILE)
    press(tab, "Answer")
    said(tab, "#strips", "onerror")
    settled(tab)
    tab.get_by_role("tab", name="Recorded answers").click()
    tab.locator("#cards summary").first.click()
    assert HOSTILE in tab.locator("#cards .text").first.inner_text()
    assert tab.title() == title


def test_recorded_answers_are_turned_and_filtered(tab):
    tab.get_by_role("tab", name="Recorded answers").click()
    press(tab, "Next →")
    said(tab, "#cards", "page 2 of 8")
    press(tab, "← Previous")
    said(tab, "#cards", "page 1 of 8")
    tab.get_by_label("where the judge's word changes").click()
    said(tab, "#cards", f"{run_folder.N - 1} of {run_folder.N} prompts")  # one is refused under every condition
    tab.get_by_label("every prompt").click()
    tab.get_by_label("Holding the text").press_sequentially("step 39")
    said(tab, "#cards", "1 of 40 prompts; page 1 of 1")
    tab.keyboard.press("Control+A")
    tab.keyboard.press("Backspace")
    said(tab, "#cards", "40 of 40 prompts")
    tab.get_by_label("Set", exact=True).click()
    tab.get_by_role("option", name="Harmless prompts").click()
    tab.wait_for_selector("#cards section.card")  # not folded
    first = tab.locator("#cards .card").first.locator("h3")
    assert first.all_inner_texts() == [
        "No intervention", "Directional ablation", "Edited weights", "Activation addition, c = 1"
    ]  # fmt: skip
    tab.locator(".token-remove").first.click()
    tab.wait_for_function("document.querySelector('#cards .card').querySelectorAll('h3').length === 3", timeout=15_000)


def test_without_a_model_a_click_tells_what_is_recorded(context, addresses):
    tab = context.new_page()
    wrong = browser.listen(tab)
    tab.goto(addresses["Records:"])
    tab.locator('#heat .cell[data-position="-1"][data-layer="5"]').click()
    said(tab, "#facts", "Layer 5, position −1")
    tab.wait_for_selector('#heat .cell.first[data-layer="5"][data-position="-1"]')
    tab.get_by_label("KL divergence").click()
    said(tab, "#heat", "KL divergence: nats")
    assert tab.get_by_role("tab", name="Play").count() == 0
    tab.close()
    assert wrong == []


def test_results_are_figures_with_their_sentences(tab):
    tab.get_by_role("tab", name="Results").click()
    tab.wait_for_selector("#results figure")
    assert tab.locator("#results .headline").first.inner_text().startswith("Ablating one direction")
    for part in ("candidates", "coefficients", "mechanism", "tests", "costs", "judges"):
        assert tab.locator(f"#results section#{part} h2").count() == 1
    assert tab.locator("#results rect.cell").first.evaluate("(one) => getComputedStyle(one).opacity") == "1"
    assert tab.locator("#results svg.figure rect.cell").first.bounding_box()["width"] < 60  # not styled as a button
    for width in (390, 820, 1400):
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.faults(tab, only=FRAME) == []  # the rest of axe is asked about the report itself
