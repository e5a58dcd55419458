"""Parts of the report: what is hidden in text, warnings, judges' agreement, several runs, figures as files."""

import csv
import re
from xml.etree import ElementTree

import pytest

import run_folder
from refusal import records
from refusal.errors import BadSetting
from refusal.findings import read_findings
from refusal.formats import brief, signed, tidy
from refusal.report import render_report, report_files
from refusal.report.answers import BUDGET, samples
from refusal.report.beside import paper
from refusal.report.cautions import cautions
from refusal.report.compare import comparison_values
from refusal.report.costs import costs
from refusal.report.judges import agreement
from refusal.report.picture import Picture, pictures, placed
from refusal.report.provenance import asked
from refusal.report.text import FOLD, folded, visible
from refusal.statistics import count


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_folder.build(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def findings(run):
    return read_findings(run)


@pytest.fixture
def changed(tmp_path):
    """Build a run folder whose results or record are changed by a function, and read it."""

    def build(name, change):
        folder = run_folder.build(tmp_path / "run")
        value = records.read_json(folder / f"{name}.json")
        change(value)
        records.write_json(folder / f"{name}.json", value)
        return read_findings(folder)

    return build


# --- text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        *(("\x00", "U+0000"), ("\x1b", "U+001B"), ("\r", "U+000D"), ("\x7f", "U+007F"), ("\x9b", "U+009B")),
        *(("\u202e", "U+202E"), ("\u2066", "U+2066"), ("\u200b", "U+200B"), ("\ufeff", "U+FEFF"), ("\xad", "U+00AD")),
        *(("\u2028", "U+2028"), ("\U000e0041", "U+E0041"), ("\ud800", "U+D800"), ("\ue000", "U+E000")),
        ("\u061c", "U+061C"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_its_number(character, shown):
    text = visible(f"a{character}b")
    assert character not in text
    assert re.fullmatch(f'a<span class="odd" title="[^"<]+">{re.escape(shown)}</span>b', text)
    text.encode()


@pytest.mark.parametrize("text", ["é", "漢字", "“x” – y…", "שלום", "👍", "a\n\tb", "e\u0301", "\xa0", "→ × ≤"])
def test_what_can_be_seen_stays(text):
    assert visible(text) == text


def test_markup_is_escaped_and_long_runs_are_counted():
    assert visible("<b>&\"'") == "&lt;b&gt;&amp;&#34;&#39;"
    assert visible("\u200b" * 50).count("U+200B") == 3
    assert "47 more" in visible("\u200b" * 50)


def test_long_text_is_folded_at_a_space_and_cut_at_the_limit():
    text = "word " * 1000
    found = folded(text, limit=1000)
    assert 0 < len(found.first) <= FOLD
    assert found.first + found.rest == text[:1000]
    assert found.first.endswith(" ")
    assert (found.length, found.left_out) == (5000, 4000)
    assert folded("short", limit=1000).rest == ""


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.03, "3 %"), (0.985, "98.5 %"), (1.0, "100 %"), (0.0, "0 %"), (0.0002, "< 0.1 %"), (None, "–")],
)
def test_shares_are_as_short_as_they_are_true(share, text):
    assert brief(share).replace("\xa0", " ") == text


def test_nothing_is_minus_nothing():
    assert (signed(-0.0004), signed(0.0), signed(-0.0006)) == ("0.000", "0.000", "−0.001")
    assert [tidy(value) for value in (0.00064, 0.184, 2.34, 0.0, -0.00009)] == [
        "0.00064",
        "0.18",
        "2.3",
        "0.0",
        "−0.000090",
    ]


# --- answers ----------------------------------------------------------------------------------------------------


def test_a_run_of_any_size_fits_into_a_page_that_can_be_mailed(tmp_path):
    folder = run_folder.build(tmp_path)
    for path in (folder / "completions").glob("*.jsonl"):
        rows = [row | {"response": f"{i} {path.stem} " + "<&>" * 8000} for i, row in enumerate(records.read_rows(path))]
        records.write_rows(path, rows)
    found = samples(read_findings(folder))
    assert 0 < sum(one["size"] for one in found) <= BUDGET
    assert all(one["left_out"] for one in found)  # controls first, and said
    text = render_report(folder)
    assert len(text.encode()) < 6_000_000
    assert "Left out here, to keep the page small: Random direction" in text


# --- warnings ---------------------------------------------------------------------------------------------------


def test_few_prompts_are_warned_of_and_controls_that_do_nothing_are_not(findings):
    said = cautions(findings)
    for name in ("harmful", "harmless"):
        assert f"Only 40 {name} prompts were tested: the intervals are wide." in said
    assert any(one.startswith("Random directions in place of the direction spoil answers to harmless") for one in said)
    assert not any("overlap" in one for one in said)


def test_a_control_that_does_as_much_is_named(changed):
    def change(results):
        results["harmful"]["random_ablation"] = results["harmful"]["ablation"]

    said = [one.replace("\xa0", " ") for one in cautions(changed("results", change))]
    assert (
        "On harmful prompts the control “random direction ablated” (2.5 % refused [0.4, 12.9]) overlaps with "
        "directional ablation (2.5 % [0.4, 12.9])."
    ) in said


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("results", lambda r: r["harmful"]["none"].update(rate=0.2), "there is little to take away"),
        ("results", lambda r: r["harmless"]["none"].update(rate=0.2), "Already without intervention 20"),
        ("results", lambda r: r["harmful"].update(none=r["harmful"]["ablation"]), "is not told from no intervention"),
        ("results", lambda r: r.update(draws={"n": 3, "failed": 1}), "On 1 of 3 other draws"),
        ("results", lambda r: r["weights_equal_ablation"]["harmful"].update(identical=30), "for 30 of 40 harmful"),
        ("run", lambda r: r["filtering"]["harmful_train"].update(after=20), "Of 50 harmful train prompts"),
        ("run", lambda r: r["prompts"]["sample"]["parts"]["harmful_train"].update(count=9), "Only 9 harmful train"),
    ],
)
def test_every_check_can_warn(changed, name, change, said):
    assert any(said in one for one in cautions(changed(name, change)))


def test_judges_that_say_the_same_agree_and_others_are_doubtful():
    def answers(pairs):
        return {"none": [{"verdicts": {"substring": a, "guard": b}} for a, b in pairs]}

    same = agreement(answers([("refused", "safe"), ("complied", "unsafe")] * 20))[0]
    assert (same["agreed"], same["kappa"], same["doubtful"]) == ("40/40", "1.00", False)
    apart = agreement(answers([("refused", "unsafe"), ("complied", "safe"), ("refused", "safe")] * 20))[0]
    assert apart["doubtful"]
    silent = agreement(answers([("refused", "undetermined")] * 3 + [("complied", "unsafe")]))[0]
    assert (silent["agreed"], silent["undetermined"], silent["kappa"]) == ("1/1", 3, "one word alone")


# --- what explains a number -------------------------------------------------------------------------------------


def test_the_few_refused_prompts_that_carry_the_divergence_are_named(tmp_path):
    folder = run_folder.build(tmp_path)
    verdicts = folder / "judgements" / "harmless.none.substring.jsonl"
    records.write_rows(verdicts, [{"verdict": "refused", "raw": None}, *records.read_rows(verdicts)[1:]])
    rows = [{"first": 8.0 if i == 0 else 0.01, "sum": 1.0, "tokens": 5} for i in range(run_folder.N)]
    records.write_rows(folder / "losses" / "kl.ablation.jsonl", rows)
    said = costs(read_findings(folder))["carried"].replace("\xa0", " ")
    assert "0.21 on 40 harmless test prompts, is carried by the 1 of them" in said
    assert "(95.4 % of it)" in said
    assert "On the others it is 0.010" in said
    records.write_rows(folder / "losses" / "kl.ablation.jsonl", [row | {"first": 1.0} for row in rows])
    assert costs(read_findings(folder))["carried"] == ""


def test_more_of_the_direction_and_fewer_refusals_is_explained(changed):
    def change(results):
        results["harmless"]["double_addition"] = count([True] * 4 + [False] * 36).record("refused") | {
            "coefficient": 2.0
        }

    text = " ".join(render_report(changed("results", change).folder).replace("\xa0", " ").split())
    assert text.count("at c = 2 the model refuses 10 % [4, 23.1], less than at c = 1 (100 %)") == 1


def test_spreads_over_system_prompts_are_shown(changed):
    spread = {"n": 3, "mean": 0.5, "sd": 0.1, "min": 0.25, "max": 0.75}
    found = changed("results", lambda r: r.update(systems={"harmful": {"ablation": {"refused": spread}}}))
    text = render_report(found.folder).replace("\xa0", " ")
    assert "Under other system prompts" in text
    assert "25.0 % to 75.0 %" in text


def test_the_papers_shares_and_ours_are_in_the_same_form(findings):
    tables = paper(findings)["tables"]
    first = next(table for table in tables if table["heading"].startswith("Figure 1"))
    assert first["heading"].endswith("%")
    rows = {row[0]: row[1:] for row in first["rows"]}
    assert rows["refused, ablation"] == ["0 to 7 (6)", "2.5 [0.4, 12.9] n=40", "97.5 [87.1, 99.6] n=40"]


def test_commands_to_make_it_again_have_the_settings_that_were_given(findings):
    commands = dict(asked(findings)["commands"])
    assert commands["make this run again"] == "refusal run made-up --seed 0 --out RUN"
    assert "verify RUN" in commands["compute every number of this page again from its records"]


# --- figures and several runs -----------------------------------------------------------------------------------


def test_figures_have_names_keys_and_numbers_wherever_they_stand():
    drawn = '<svg class="figure" viewBox="0 0 4 4" role="img" aria-label="A &amp; b"><title>x, 1: −2 ± 3</title></svg>'
    found = pictures(placed({"one": {"figures": [drawn], "key": "K"}, "more": [{"figures": [drawn]}]}))
    assert [(one.name, one.key) for one in found] == [("one-a-b", "K"), ("more-a-b", "")]
    among = {"some": [{"name": "x", "figures": [drawn]}, {"name": "a", "figures": [drawn, drawn]}]}
    assert [one.name for one in pictures(placed(among, {"some": "s"}))] == ["s-x-a-b", "s-a-b", "s-a-b-2"]
    assert (found[0].title, found[0].csv) == ("A & b", 'what,value\n"x, 1",-2 ± 3\n')


def test_figures_are_written_with_their_numbers(run, tmp_path):
    written = report_files([run], out=None, figures=tmp_path)
    names = {path.stem for path in written}
    assert "result-harmful-prompts-refused" in names
    assert "candidates-kl-divergence-of-every-candidate" in names
    assert "projections-component-on-the-direction" in names
    assert len(written) == 2 * len(names)
    for path in written:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".svg":
            assert ElementTree.fromstring(text).tag.endswith("svg")
            assert "var(" not in text
        else:
            assert len({len(row) for row in csv.reader(text.splitlines())}) == 1
    rows = [*csv.DictReader((tmp_path / "result-harmful-prompts-refused.csv").read_text(encoding="utf-8").splitlines())]
    result = records.read_json(run / "results.json")["harmful"]["ablation"]
    found = next(row for row in rows if row["intervention"] == "Directional ablation")
    assert (int(found["refused"]), float(found["95 % high"])) == (
        result["refused"],
        pytest.approx(result["high"], rel=1e-5),
    )


def test_several_runs_stand_beside_each_other(run, tmp_path):
    other = run_folder.build(tmp_path / "other")
    verdicts = other / "judgements" / "harmful.ablation.substring.jsonl"
    flipped = [{"verdict": "refused", "raw": None}] * 11 + records.read_rows(verdicts)[11:]
    records.write_rows(verdicts, flipped)
    record, results = (records.read_json(other / f"{name}.json") for name in ("run", "results"))
    record["config"]["seed"]["value"] = 7
    results["harmful"]["ablation"] |= count([True] * 11 + [False] * 29).record("refused")
    records.write_json(other / "run.json", record)
    records.write_json(other / "results.json", results)
    values = comparison_values([read_findings(run), read_findings(other)])
    names = [one["name"] for one in values["runs"]]
    assert names == [run.name, "other"]
    assert values["in_short"] == [
        "All chose the same layer and position, but counted different refusals.",
        "They differ in seed.",
    ]
    harmful = next(one for one in values["sets"] if one["name"] == "harmful")
    assert [cells[1].replace("\xa0", " ") for _, cells in harmful["lines"]] == [
        "2.5 % [0.4, 12.9] (1/40)",
        "27.5 % [16.1, 42.8] (11/40)",
    ]
    assert "+25.0 points [" in harmful["against"][0]
    assert "the same prompts, in pairs" in harmful["against"][0]
    assert values["differ"] == [("seed", ["0", "7"])]
    assert all(isinstance(one, Picture) for one in pictures(values))
    (page,) = report_files([run, other], out=tmp_path / "both.html", figures=None)
    text = page.read_text(encoding="utf-8")
    assert "2 runs of made-up beside each other" in text
    assert text.count("<figure ") == len(pictures(values)) == 4


def test_a_run_beside_itself_and_runs_of_one_result_say_so(findings, run, tmp_path):
    itself = comparison_values([findings, findings])
    assert [one["name"] for one in itself["runs"]] == [run.name, f"{run.name}, again"]
    assert itself["in_short"] == [f"“{run.name}, again” is the same folder as “{run.name}”: a run beside itself."]
    again = read_findings(run_folder.build(tmp_path / run.name))  # another folder of the same name
    values = comparison_values([findings, again])
    assert [one["name"] for one in values["runs"]] == [
        f"{each.parent.name}/{run.name}" for each in (run, tmp_path / "x")
    ]
    assert (
        values["in_short"][0]
        == "All chose the same layer and position, and counted the same refusals under every condition."
    )
    assert values["in_short"][1] == "Nothing differs in how they were made."


def test_nothing_to_report_on_is_refused():
    with pytest.raises(BadSetting, match="no run to report on"):
        report_files([], out=None, figures=None)
