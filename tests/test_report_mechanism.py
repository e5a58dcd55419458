"""The report's section on suffixes: every number of the record is there, text stays text, and an absence is said."""

import re
from xml.etree import ElementTree

import pytest

import run_folder
from refusal.errors import BadRunFolder
from refusal.records import write_json
from refusal.report import drawing, write_report
from refusal.report.mechanism import COLOURS, suffix_values, suffixes
from refusal.report.notebook import show
from refusal.statistics import count

CONDITIONS = ["harmful", "random suffix", "suffix", "permuted suffix", "suffix first", "harmless"]
LAYERS, COMPONENTS = ["0", "1", "2", "final"], ["embedding", "H0.0", "H0.1", "attention bias 0", "MLP 0", "mamba 1"]
AT_LAYER_2 = [0.8, 0.6, 0.1, 0.2, 0.3, 0.05]


def measured(axes, value):
    """A measurement's record whose every mean is `value` of its indices, and whose deviations are a tenth of it."""

    def array(done, left, factor):
        if not left:
            return factor * float(value(*done))
        return [array([*done, i], left[1:], factor) for i in range(len(left[0]))]

    labels = [*axes.values()]
    arrays = {"mean": array([], labels, 1), "sd": array([], labels, 0.1)}
    return {"format": 1, "name": "made up", "axes": axes, **arrays, "n": [9] * len(labels[0]), "facts": {"layer": 2}}


def record(suffix="a <b> c"):
    vectors = ["found", "random"]
    refused = {name: count([i < 9 - k for i in range(9)]).record("refused") for k, name in enumerate(CONDITIONS)}
    return {
        "format": 1,
        "suffix": suffix,
        "refused": refused,
        "cosines": measured(
            {"condition": CONDITIONS, "vector": vectors, "layer": LAYERS},
            lambda c, v, layer: (AT_LAYER_2[c] if not v else 0.07) * layer / 2,
        ),
        "attribution": measured(
            {"condition": CONDITIONS, "vector": vectors, "component": COMPONENTS},
            lambda c, v, part: (part + 1) * (1 if c == 0 else -0.5 if c == 2 else 0.25) if not v else 0.0,
        ),
        "attention": measured(
            {"condition": CONDITIONS[1:4], "region": ["instruction", "suffix", "template"], "head": ["H0.1", "H0.0"]},
            lambda c, region, head: [[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.25, 0.6, 0.15]][c][region],
        ),
        "facts": {"layer": 2, "tokens": 3, "asked and kept": {"harmful": [9, 9], "harmless": [11, 9]}},
    }


@pytest.fixture
def run(tmp_path):
    return run_folder.build(tmp_path)


def section(run) -> str:
    page = write_report(run).read_text(encoding="utf-8")
    return page[page.index('<section id="mechanism">') :].partition("</section>")[0]


def plain(html: str) -> str:
    return re.sub(r"[ \n]+", " ", re.sub(r"<[^>]*>", "", re.sub(r"(?s)<svg.*?</svg>", "", html)))


def test_a_run_without_suffixes_says_so(run):
    assert "Not in this run: what a suffix does" in section(run)


def test_the_sentences_say_the_records_numbers(run):
    write_json(run / "mechanism" / "suffix.json", record())
    text = plain(section(run))
    assert "0.80 on harmful prompts, 0.60 with random suffixes, 0.10 with this one and 0.05 on harmless" in text
    # (0.8 − 0.1) and (0.8 − 0.6) of 0.75
    assert "takes away 93.3\N{NO-BREAK SPACE}% of the difference between the two kinds, random ones 26.7" in text
    assert "A random direction&#39;s cosine on harmful prompts is 0.07" in text
    # 1 + … + 6 = 21; heads and their bias are 2, 3 and 4 of it
    assert "is 21.0 (heads 9.0, the rest 12.0) on harmful prompts" in text
    assert "−10.5 (heads −4.5, the rest −6.0) with this one" in text
    assert "give the instruction 20.0\N{NO-BREAK SPACE}% of the last token&#39;s attention and this suffix 70.0" in text
    assert "9 of 9 harmful prompts that the model refuses and the 9 of 11 harmless" in text
    assert "a &lt;b&gt; c" in text
    assert "<b> c" not in section(run)


def test_every_suffix_has_its_part_in_order(run):
    for name, suffix in (("suffix.json", "first one"), ("suffix-2.json", "second one")):
        write_json(run / "mechanism" / name, record(suffix))
    assert re.findall("The suffix <code>(.*?)</code>", section(run)) == ["first one", "second one"]


def test_the_table_holds_every_rate_and_cosine(run):
    write_json(run / "mechanism" / "suffix.json", record())
    for k, _ in enumerate(CONDITIONS):
        assert f">{9 - k}/9<" in section(run)
        assert f">{AT_LAYER_2[k]:.3f} ± {AT_LAYER_2[k] / 10:.3f}<" in section(run)


def test_figures_are_strict_and_tell_every_number():
    near = suffix_values(record())["cosines"]
    told = re.findall("<title>(.*?)</title>", near["figures"][0])
    assert len(told) == len(CONDITIONS) * len(LAYERS)
    assert "suffix, layer 2: 0.1 ± 0.01 (n = 9)" in told
    assert "harmless, layer final: 0.075 ± 0.0075 (n = 9)" in told
    groups = [("H0.1", {"harmful": drawing.spread(3.0, 0.5), "suffix": drawing.spread(-1.5, 0.25)})]
    bars = drawing.bars(groups, "title", "note", colours=COLOURS)
    assert re.findall("<title>(.*?)</title>", bars) == ["H0.1, harmful: 3 ± 0.5", "H0.1, suffix: −1.5 ± 0.25"]
    for picture in (near["figures"][0], near["key"], bars, drawing.bars_key(COLOURS)):
        ElementTree.fromstring(picture)
    widths = [float(x) for x in re.findall(r'<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)"', bars)]
    assert widths[0] == pytest.approx(2 * widths[1], rel=1e-2)


def test_a_file_that_is_no_study_is_refused(run):
    write_json(run / "mechanism" / "suffix.json", {"suffix": "x"})
    with pytest.raises(BadRunFolder, match=r"suffix\.json lacks refused"):
        suffixes(run)


class Study:
    """Something with a record, as an analysis returns it."""

    def record(self):
        return record("a <script>b</script> c")


def test_a_notebook_shows_what_the_report_says_of_a_suffix():
    found = show(Study())
    assert "<script>" not in found.html
    assert found.html.count('<svg class="figure" viewBox="0 0 4') == 5  # the figures; keys are smaller
    assert all(f"<td>{name.capitalize()}</td>" in found.html for name in CONDITIONS)
    assert str(found).startswith("The suffix “a <script>b</script> c”\nWith this suffix the model refuses")
    assert len(str(found).splitlines()) == 5
