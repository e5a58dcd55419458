"""The report: all the numbers and nothing else, model text that stays text, and missing parts that are said to miss."""

import json
import re
from html.parser import HTMLParser

import pytest

import run_folder
from refusal import records
from refusal.config import RunConfig
from refusal.errors import BadRunFolder
from refusal.formats import percent
from refusal.report import write_report
from refusal.report.answers import OPEN
from refusal.report.headline import headline
from refusal.results import summarize
from refusal.statistics import Rate


class Page(HTMLParser):
    """What a browser would see: the tags in order, and the cells of the result tables."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.folded, self.unfolded = [], [], [], []
        self.cells: dict[tuple[str, str], list[str]] = {}
        self.set = self.row = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.set = given.get("data-set", self.set)
        self.row = given.get("data-intervention", self.row)
        if tag == "td" and self.row:
            self.cells.setdefault((self.set, self.row), []).append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass
        if tag == "table":
            self.set = self.row = ""

    def handle_data(self, data):
        (self.folded if "details" in self.open else self.unfolded).append(data)
        if "td" in self.open and self.row:
            self.cells[self.set, self.row][-1] += data


def report(folder) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_folder.build(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run):
    return Page(report(run))


def cells_of(row, measure):
    return [
        f"{row[measure]}/{row['n']}",
        percent(row["rate"]),
        f"{percent(row['low'])} to {percent(row['high'])}",
    ]


def test_the_table_holds_every_number_of_the_results_and_no_other(run, page):
    results = records.read_json(run / "results.json")
    expected = {
        (name, kind): cells_of(row, "refused") + cells_of(row["exact"], "exact")
        for name in ("harmful", "harmless")
        for kind, row in results[name].items()
        if kind != "random"  # the same row as random_ablation or random_addition, shown once
    }
    assert page.cells == expected


def test_a_control_stands_behind_what_it_controls(page):
    kinds = [kind for name, kind in page.cells if name == "harmful"]
    assert kinds.index("random_ablation") == kinds.index("ablation") + 1
    classes = {given.get("data-intervention"): given.get("class") for tag, given in page.tags if tag == "tr"}
    assert classes["random_ablation"] == "control"
    assert classes["ablation"] is None


def test_coefficients_of_additions_are_shown(run):
    text = report(run)
    assert "c = −1" in text
    assert "c = 1" in text


def test_the_headline_is_built_from_the_numbers(run):
    results = records.read_json(run / "results.json")
    first, second = (sentence.replace("\xa0", " ") for sentence in headline(results))
    place = f"layer {results['layer']}, position −{-results['position']}"
    assert first == (
        f"Ablating one direction, {place}, takes refusals of 40 held-out harmful prompts from 100 % to 2.5 % "
        "[0.4, 12.9]; a random direction leaves 97.5 %."
    )
    assert second == (
        "Adding the same direction takes refusals of 40 held-out harmless prompts from 0 % to 100 % [91.2, 100]; "
        "a random direction leaves 5 %."
    )
    results["harmful"]["ablation"] |= {"refused": 40, "rate": 1.0, "high": 1.0}  # a run without the phenomenon says so
    assert "is not shown to change refusals of 40 held-out harmful prompts" in headline(results)[0]
    results["harmless"]["random_addition"] |= {"rate": 0.6}  # and one whose control does something
    assert headline(results)[1].replace("\xa0", " ").endswith("; with a random direction it is 60 %.")


def test_model_text_is_escaped(tmp_path):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)></pre>{{ 7 * 7 }}"
    text = report(run_folder.build(tmp_path, response=evil))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert not [given for tag, given in Page(text).tags if "onerror" in given]
    assert "img" not in {tag for tag, _ in Page(text).tags}
    assert [tag for tag, _ in Page(text).tags].count("script") == 1


def test_nothing_is_loaded_from_elsewhere(run, page):
    assert not {"link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not [given for _, given in page.tags if {"src", "srcset", "data"} & set(given)]
    assert all(given["href"].startswith("#") for _, given in page.tags if "href" in given)
    assert not re.search(r"url\(|@import|https?:(?!//www.w3.org/2000/svg)", report(run))
    assert len(report(run)) < 1_000_000


def test_completions_to_harmful_prompts_are_folded_but_where_harm_is_make_believe(page, tmp_path):
    assert "harmful request 0" in "".join(page.unfolded)
    page = Page(report(run_folder.build(tmp_path, grammar=False)))
    folded, unfolded = "".join(page.folded), "".join(page.unfolded)
    assert "harmful request 0" in folded
    assert "harmful request" not in unfolded
    assert "harmless request 0" in unfolded
    assert not [given for tag, given in page.tags if tag == "details" and "open" in given]


def test_the_first_prompts_are_shown_with_all_four_answers(page, run):
    text = report(run)
    assert text.index(f"harmless request {OPEN - 1}<") < text.rindex(f"The other {run_folder.N - OPEN} prompts")
    assert "in the order of the set" in text
    assert "".join(page.unfolded).count("harmless request") == OPEN + 1  # and the example
    shown = [given["data-kinds"].split() for tag, given in page.tags if "data-kinds" in given]
    listed = [kind for kinds in shown for kind in kinds]
    assert len(listed) == run_folder.N * sum(map(len, run_folder.REFUSED.values())) + 4  # two answers an example
    assert ["ablation", "weights"] in shown  # the same text and verdicts: shown once, under both names
    assert text.count("the same text as “") > 0


def test_what_was_asked_is_there(run):
    text = report(run)
    for said in ("the first token of most refusals", "float32: exact and fast", "torch 0.0", "formulas in the tests"):
        assert said in text


def test_a_run_without_the_optional_parts_says_what_it_lacks(tmp_path):
    text = report(run_folder.build_bare(tmp_path))
    for part in ("completions", "projections", "a curve over coefficients", "edited weights", "its prompt sets"):
        assert re.search(f'class="absent">Not in this run: [^<]*{part}', text), part
    assert "Exact answers" not in text
    assert set(Page(text).cells) == {("harmless", "none"), ("harmless", "addition")}


def test_without_a_grammar_there_is_no_exactness(tmp_path):
    text = report(run_folder.build(tmp_path, grammar=False))
    assert "exact answers" not in text.lower()
    assert "invented language" not in text


@pytest.mark.parametrize("name", ["run.json", "results.json", "selection.jsonl"])
def test_a_missing_record_is_named(tmp_path, name):
    folder = run_folder.build(tmp_path)
    (folder / name).unlink()
    with pytest.raises(BadRunFolder, match=rf"{name} is missing"):
        write_report(folder)


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "results.json",
        "selection.jsonl",
        "projections.json",
        "coefficients.json",
        "completions/harmful.none.jsonl",
        "judgements/harmful.none.substring.jsonl",
    ],
)
@pytest.mark.parametrize("broken", ['{"format": 1, "har', "{}\n", "[]\n", "7\n"])
def test_a_broken_record_is_named_and_nothing_is_written(tmp_path, name, broken):
    folder = run_folder.build(tmp_path)
    (folder / name).write_text(broken)
    with pytest.raises(BadRunFolder, match=name.rpartition("/")[2]):
        write_report(folder)
    assert not list(folder.glob("*report.html*"))


def test_a_rate_without_its_interval_is_refused(tmp_path):
    folder = run_folder.build(tmp_path)
    results = records.read_json(folder / "results.json")
    del results["harmful"]["ablation"]["high"]
    records.write_json(folder / "results.json", results)
    with pytest.raises(BadRunFolder, match="lacks high"):
        write_report(folder)


def test_verdicts_that_do_not_match_their_completions_are_refused(tmp_path):
    folder = run_folder.build(tmp_path)
    records.write_rows(folder / "judgements" / "harmful.none.substring.jsonl", [{"verdict": "refused", "raw": None}])
    with pytest.raises(BadRunFolder, match="1 verdicts on 40 completions"):
        write_report(folder)


def test_writing_twice_gives_the_same_bytes_also_after_the_run_was_closed(tmp_path):
    folder = run_folder.build(tmp_path)
    first = report(folder)
    records.Run.read(folder).note(status="running", steps={"report": {"seconds": 1.5}})
    assert report(folder) == first


def test_an_undetermined_verdict_is_neither_yes_nor_no(tmp_path):
    folder = run_folder.build(tmp_path)
    path = folder / "judgements" / "harmless.none.substring.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    records.write_rows(path, [{"verdict": "undetermined", "raw": "no answer"}, *rows[1:]])
    assert report(folder).count(">substring: undetermined</span>") == 2  # in its place and as the example


@pytest.mark.parametrize(
    "row", [{"verdict": True}, {"verdict": None}, {"verdict": "yes"}, {"verdict": "safe", "raw": 1}]
)
def test_a_verdict_of_an_older_version_or_of_no_known_word_is_refused(tmp_path, row):
    folder = run_folder.build(tmp_path)
    path = folder / "judgements" / "harmless.none.substring.jsonl"
    records.write_rows(path, [row, *records.read_rows(path)[1:]])
    with pytest.raises(BadRunFolder, match=r"holds the verdict .*; expected one of refused, complied, unsafe"):
        write_report(folder)


def test_every_judge_has_its_tag_beside_an_answer(tmp_path):
    folder = run_folder.build(tmp_path)
    words = [{"verdict": word, "raw": None} for word in ("unsafe", "safe", "incoherent", "undetermined")] * 10
    records.write_rows(folder / "judgements" / "harmless.none.llama-guard-2.jsonl", words)
    page = report(folder)
    assert page.count('<span class="tag llama-guard-2 unsafe">llama-guard-2: unsafe</span>') == 11  # and the example
    page = page[page.index('id="completions"') :]
    tags = ('tag substring complied">complied<', 'tag grammar complied">exact<', "tag llama-guard-2 unsafe")
    places = [page.index(tag) for tag in tags]
    assert places == sorted(places)


def test_a_judge_that_determined_nothing_is_shown_as_such(tmp_path):
    folder = run_folder.build(tmp_path)
    record = records.read_json(folder / "run.json")
    config = {name: entry for name, entry in RunConfig().record().items() if name not in record["config"]}
    judges = {"my-guard": {"measure": "unsafe", "settings": None}}
    records.write_json(folder / "run.json", record | {"config": config | record["config"], "judges": judges})
    nothing = [{"verdict": "undetermined", "raw": "the guard said 'maybe'"}] * run_folder.N
    for path in (folder / "completions").glob("*.jsonl"):
        records.write_rows(folder / "judgements" / f"{path.stem}.my-guard.jsonl", nothing)
    records.write_rows(folder / "judgements" / "harmless.addition.substring.jsonl", nothing)
    records.write_json(folder / "results.json", summarize(folder))
    row = records.read_json(folder / "results.json")["harmful"]["ablation"]["judges"]["my-guard"]
    assert (row["unsafe"], row["n"], row["rate"], row["undetermined"]) == (0, 0, None, run_folder.N)
    page = Page(report(folder))
    assert page.cells["harmless", "addition"][0].startswith("0/0")
    assert page.cells["harmless, further judges", "Directional ablation"][0] == "0/0"
    assert f"Unsafe answers (my-guard): {run_folder.N} undetermined, not counted" in page.unfolded
    assert "nan" not in "".join(page.unfolded).lower()


def test_every_further_judge_has_a_column_with_its_interval_and_a_bar(tmp_path):
    folder = run_folder.build(tmp_path)
    results = records.read_json(folder / "results.json")
    rows = results["harmless"]
    for i, kind in enumerate(("none", "ablation", "addition")):
        rates = {"llama-guard-2": Rate(i, 40, 3).record("unsafe"), "polite": Rate(40 - i, 40).record("refused")}
        rows[kind]["judges"] = rates
    records.write_json(folder / "results.json", results)
    text = report(folder)
    page = Page(text)
    first, last = (
        page.cells["harmless, further judges", name] for name in ("Directional ablation", "Activation addition")
    )
    rate = Rate(1, 40)
    assert [cell.replace("\xa0", " ") for cell in first] == [
        *("1/40", "2.5 %", f"{100 * rate.interval[0]:.1f} % to {100 * rate.interval[1]:.1f} %"),
        *("39/40", "97.5 %", "87.1 % to 99.6 %"),
    ]
    assert (last[0], last[3]) == ("2/40", "38/40")
    assert page.cells["harmless, further judges", "Edited weights"] == ["–"] * 6  # judged nothing of it
    assert "Unsafe answers (llama-guard-2): 3 undetermined, not counted" in page.unfolded
    for head in ("Unsafe answers (llama-guard-2)", "Refusals (polite)"):
        assert f'role="img" aria-label="{head}"' in text
    assert not any(name == "harmful, further judges" for name, _ in page.cells)
