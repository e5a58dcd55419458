"""The report in a real browser: it opens quietly, answers to pointer and keys, and hostile text stays text."""

import csv
import time
from xml.etree import ElementTree

import pytest

import browser
import run_folder
from refusal.findings import read_findings
from refusal.records import read_rows, write_rows
from refusal.report import write_comparison, write_report
from refusal.report.answers import OPEN
from refusal.report.content import page_values
from refusal.report.picture import pictures

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"></pre></article>"
    "<svg onload=\"document.title='owned'\"></svg>{{7*7}}\x1b[31m\x1b]0;owned\x07 \u202eevil\u2066 \u200bword. "
)
LONG = 1_000_000
WIDTHS = (390, 820, 1400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = run_folder.build(tmp_path_factory.mktemp("run"), response=HOSTILE, grammar=False)
    path = folder / "completions" / "harmless.addition.jsonl"
    first, *rest = read_rows(path)
    write_rows(path, [first | {"response": "long" * (LONG // 4)}, *rest])
    return folder


@pytest.fixture(scope="module")
def file(folder):
    return write_report(folder)


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def context(chromium):
    opened = chromium.new_context(viewport={"width": 1400, "height": 900})
    yield opened
    opened.close()


@pytest.fixture
def tab(context, file):
    """A tab with the report open; fails when anything is said in the console or asked of another host."""
    tab = context.new_page()
    said = browser.listen(tab)
    tab.goto(file.as_uri())
    yield tab
    title = tab.title()
    tab.close()
    assert said == []
    assert title == "Refusal in made-up"


def test_it_opens_quietly_and_soon(tab, file):
    start = time.monotonic()
    tab.reload()
    assert time.monotonic() - start < 2
    assert file.stat().st_size < 6_000_000
    assert tab.locator("main h1").inner_text() == "Refusal in made-up"


def test_hostile_answers_are_text_and_what_is_hidden_in_them_is_shown(tab):
    # Nothing in the page runs but its own script: the title is held after every test, see `tab`.
    assert tab.locator("main script, main img, main pre svg").count() == 0
    answer = tab.locator("#completions .sample").last.locator(".card").nth(1).locator("pre").nth(1)
    assert (answer.text_content() or "").startswith("<script>document.title='owned'</script><img src=x onerror=")
    for named in ("U+001B", "U+0007", "U+202E", "U+2066", "U+200B"):
        assert tab.locator(".odd", has_text=named).count() > 0
    assert not tab.evaluate(r"/[\u001b\u0007\u202e\u2066\u200b]/.test(document.body.textContent)")


def test_a_very_long_line_is_cut_and_does_not_widen_the_page(tab):
    long = tab.locator("#completions .sample").last.locator(".more", has_text="characters are in").first
    assert f"{LONG:,} characters" in (long.locator("summary").text_content() or "")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1400


@pytest.mark.parametrize("width", WIDTHS)
def test_no_width_scrolls_sideways(chromium, file, width):
    opened = chromium.new_context(viewport={"width": width, "height": 800})
    tab = opened.new_page()
    tab.goto(file.as_uri())
    tab.evaluate("document.querySelectorAll('main details').forEach((one) => { one.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


def test_a_mark_tells_its_numbers_to_the_pointer_and_to_the_keys(tab):
    svg, tip = tab.locator("#candidates figure > svg").first, tab.locator("#tip")
    svg.scroll_into_view_if_needed()
    svg.locator("rect.cell").nth(7).hover()
    assert tip.inner_text().startswith("position −5 <|im_end|>, layer 7: ")
    own, drawn = tip.bounding_box(), svg.bounding_box()
    assert own["y"] >= drawn["y"] + drawn["height"]  # it hides no other mark
    tab.mouse.move(1, 1)
    assert tip.inner_text() == ""
    svg.focus()
    tab.keyboard.press("ArrowRight")
    first = tip.inner_text()
    tab.keyboard.press("ArrowRight")
    assert (first.split(":")[0], tip.inner_text().split(":")[0]) == tuple(
        f"position −5 <|im_end|>, layer {layer}" for layer in (0, 1)
    )
    tab.keyboard.press("Escape")
    assert tip.inner_text() == ""


def test_answers_are_filtered_by_text_condition_and_verdict(tab):
    sample = tab.locator("#completions .sample").last

    def shown():
        return sample.locator(".card:visible").count()

    assert shown() == OPEN
    sample.locator("input").fill("request 3")
    assert (shown(), sample.locator("output").inner_text()) == (11, f"11 of {run_folder.N} prompts")  # 3, 30 … 39
    sample.locator("input").fill("")
    sample.locator("select[name=kind]").select_option("random_addition")
    sample.locator("select[name=tag]").select_option("refused")
    assert shown() == run_folder.REFUSED["harmless"]["random_addition"][0]
    labels = sample.locator(".card:visible .answer:visible .who").all_inner_texts()
    assert all(label.startswith(("No intervention", "Random direction added")) for label in labels)
    for name in ("kind", "tag"):
        sample.locator(f"select[name={name}]").select_option("")
    assert shown() == OPEN


def test_harmful_prompts_are_folded_until_asked_for(tab):
    assert tab.get_by_text("harmful request 0", exact=True).locator("visible=true").count() == 0
    tab.locator("#completions .folded > summary").click()
    assert tab.locator("#completions").get_by_text("harmful request 0", exact=True).is_visible()
    assert not tab.locator("#example").get_by_text("harmful request 0", exact=True).is_visible()


def test_figures_are_saved_as_svg_and_csv(tab, folder):
    wanted = {one.name: one for one in pictures(page_values(read_findings(folder)))}
    for name in ("candidates-the-rule-s-verdict-on-every-candidate", "result-harmful-prompts-refused"):
        figure = tab.locator(f"figure[data-name={name}]")
        found = {}
        for kind in ("svg", "csv"):
            with tab.expect_download() as download:
                figure.locator(f"[data-save={kind}]").click()
            assert download.value.suggested_filename == f"{name}.{kind}"
            found[kind] = download.value.path().read_text(encoding="utf-8")
        assert [*csv.reader(found["csv"].splitlines())] == [*csv.reader(wanted[name].csv.splitlines())]
        assert "var(" not in found["svg"]
        drawn, expected = (
            [(e.tag, (e.text or "").strip()) for e in ElementTree.fromstring(svg).iter() if not e.tag.endswith("title")]
            for svg in (found["svg"], wanted[name].alone)
        )
        assert drawn == expected  # what the command line writes, but for what only pointing at a mark tells


def lighten(tab):
    """Leave a few answers of each kind, so that axe need not look at hundreds of elements that are built alike."""
    many = ".rest, .card:nth-of-type(n + 3), svg > :nth-child(n + 12), figure:not(:first-child) .numbers, .odd"
    tab.evaluate("(many) => document.querySelectorAll(many).forEach((one) => one.remove())", many)
    tab.evaluate("document.querySelectorAll('#result details, .folded').forEach((one) => { one.open = true; })")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(chromium, file, scheme):
    opened = chromium.new_context(viewport={"width": 1400, "height": 900}, color_scheme=scheme)
    tab = opened.new_page()
    tab.goto(file.as_uri())
    lighten(tab)
    assert browser.faults(tab, only=() if scheme == "light" else ("color-contrast",)) == []
    opened.close()


def test_axe_can_find_a_fault(context, file):
    tab = context.new_page()
    tab.goto(file.as_uri())
    lighten(tab)
    tab.evaluate("document.querySelector('figure > svg').removeAttribute('aria-label')")
    assert [fault.split(":")[0] for fault in browser.faults(tab, only=["svg-img-alt"])] == ["svg-img-alt"]
    tab.close()


def test_without_scripts_the_page_is_whole(chromium, file):
    opened = chromium.new_context(java_script_enabled=False)
    tab = opened.new_page()
    tab.goto(file.as_uri())
    assert tab.locator(".headline").first.is_visible()
    assert tab.locator("figure > svg rect.cell title").count() > 0
    assert tab.locator("#completions .card:visible").count() == OPEN
    assert tab.locator("form.filters:visible, .save:visible").count() == 0
    opened.close()


def test_contents_and_sections_have_the_same_names_and_links_lead_somewhere(tab):
    names = "(all) => all.map((one) => [one.id, one.querySelector('h2').innerText])"
    listed = tab.eval_on_selector_all("nav a", "(all) => all.map((one) => [one.hash.slice(1), one.innerText])")
    assert tab.eval_on_selector_all("main > section", names) == listed
    dead = "(all) => all.map((one) => one.hash.slice(1)).filter((id) => !document.getElementById(id))"
    assert tab.eval_on_selector_all("a[href^='#']", dead) == []


def test_in_print_tables_are_open_and_what_is_closed_leaves_nothing(tab):
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(28, 30, 33)"  # dark on paper
    assert tab.locator("table.rates").first.is_visible()
    assert not tab.locator("nav").is_visible()
    assert tab.get_by_text("harmful request 0", exact=True).locator("visible=true").count() == 0
    assert tab.locator("summary:visible").count() == 0
    assert tab.pdf().startswith(b"%PDF")


def test_the_page_of_several_runs_is_sound_too(context, folder, tmp_path):
    tab = context.new_page()
    said = browser.listen(tab)
    tab.goto(write_comparison([folder, folder], tmp_path / "comparison.html").as_uri())
    lighten(tab)
    assert browser.faults(tab) == []
    assert said == []
    assert tab.title() == "2 runs of refusal beside each other"
    tab.close()
