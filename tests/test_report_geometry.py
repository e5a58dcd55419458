"""The report's sections on geometry: sentences say the records' numbers, and the figures tell every one of them."""

import re
from xml.etree import ElementTree

import pytest

from refusal.report import geometry
from refusal.report.agreement import agreement, candidate_cosines
from refusal.report.measured import Measured
from refusal.report.separability import section as separability

LAYERS, POSITIONS, TOKENS = ["0", "1", "2"], ["-2", "-1"], ["<b>", "\n"]
PLACE = {"layer": 1, "position": -1, "norm": 4.0, "tokens": TOKENS, "seed": 0}


def measured(name, axes, mean, sd, facts, n):
    return {"format": 1, "name": name, "axes": axes, "mean": mean, "sd": sd, "n": n, "facts": facts}


def titles(figures) -> list[str]:
    return [title for figure in figures for title in re.findall("<title>(.*?)</title>", figure)]


def strict(section) -> None:
    for markup in [*section.figures, f"<p>{section.key}</p>"]:
        ElementTree.fromstring(markup)


@pytest.fixture
def projections():
    axes = {"condition": ["harmful", "harmless"], "vector": ["found", "random"], "position": POSITIONS, "layer": LAYERS}
    found = {"harmful": [[0, 1, 2], [0, 6, 9]], "harmless": [[0, 1, 2], [0, 2, 1]]}
    mean = [[rows, [[0, 0.5, 0.5]] * 2] for rows in found.values()]
    sd = [[[[0, 1, 2]] * 2, [[0, 1, 1]] * 2]] * 2
    bins = {"edges": [0.0, 2.0, 4.0, 6.0], "harmful": [0, 1, 3], "harmless": [5, 0, 0]}
    control = {"edges": [0.0, 0.5, 1.0, 1.5], "harmful": [2, 2, 0], "harmless": [3, 2, 0]}
    facts = PLACE | {"histogram": {"found": bins, "random": control}}
    return measured("projections", axes, mean, sd, facts, [4, 5])


@pytest.fixture
def pca():
    axes = {"condition": ["harmful", "harmless"], "component": ["1", "2"]}
    facts = PLACE | {
        "d_model": 25,
        "explained": [0.75, 0.125],
        "cosine": {"found": [0.8, -0.6], "random": [0.1, 0.2]},
        "variance": {"all": {"found": 0.5, "random": 0.03}, "within": {"found": 0.2, "random": 0.04}},
        "points": {"harmful": [[3.0, 1.0], [2.0, 0.0]], "harmless": [[-3.0, 1.0], [-1.0, -2.0]]},
    }
    return measured("pca", axes, [[2.5, 0.5], [-2.0, -0.5]], [[1, 1], [1, 1]], facts, [2, 2])


def test_projections_say_how_far_apart_the_classes_lie(projections):
    section = geometry.projections(Measured.read(projections))
    said = " ".join(section.said)
    assert "layer 1, position −1 \\n" in said
    assert "6.0 ± 1.0 on 4 harmful prompts and 2.0 ± 1.0 on 5 harmless ones" in said
    assert "lie 4.0 standard deviations apart, and the histograms share 0.0" in said
    assert "Along a random direction they lie 0.0 standard deviations apart and share 90.0" in said  # 0.5 + 0.4
    assert "furthest" not in said  # 4 of layer 2 is as far, and 1 comes first
    projections["mean"][0][0][1][2] = 10
    assert "furthest apart along this direction at layer 2" in " ".join(
        geometry.projections(Measured.read(projections)).said
    )


def test_projections_are_drawn_at_every_position_and_layer(projections):
    section = geometry.projections(Measured.read(projections))
    told = titles(section.figures)
    assert len(section.figures) == len(POSITIONS) + 2
    assert len(told) == 2 * 6 + 3 + 4  # points, and bins that are not empty
    assert "harmful, layer 1: 6 ± 1 (n = 4)" in told
    assert "harmful, 4 to 6: 3 of 4" in told
    assert "Position −2 &lt;b&gt;" in section.figures[0]
    strict(section)


def test_components_say_what_they_hold_of_the_direction(pca):
    said = " ".join(geometry.pca(Measured.read(pca)).said)
    assert "component of all 4 prompts holds 75.0" in said
    assert "cosine with the direction is 0.800; with a random direction it is 0.100 (by chance 0 ± 0.200)" in said
    assert "mostly what the direction says" in said
    assert "first 2 components together hold 100.0" in said
    pca["facts"]["cosine"]["found"] = [0.6, 0.1]
    assert "mostly something else" in " ".join(geometry.pca(Measured.read(pca)).said)


def test_prompts_are_drawn_in_one_scale_with_the_direction(pca):
    section = geometry.pca(Measured.read(pca))
    told = titles(section.figures)
    assert "harmless, prompt 2: −1, −2" in told
    assert "component 2: 36.0\N{NO-BREAK SPACE}% of the direction" in told
    x1, y1, x2, y2 = map(
        float, re.search('class="limit" x1="(.*?)" y1="(.*?)" x2="(.*?)" y2="(.*?)"', section.figures[0]).groups()
    )
    assert (y2 - y1) / (x2 - x1) == pytest.approx(0.6 / 0.8, rel=1e-3)  # downwards on the page, and the same scale
    strict(section)


# --- telling apart against causing ------------------------------------------------------------------------------


@pytest.fixture
def separable():
    vectors = ["own", "found", "random"]
    axes = {"condition": ["harmful", "harmless"], "vector": vectors, "position": POSITIONS, "layer": LAYERS}
    areas = [[[0.5, 1.0, 0.96], [0.5, 0.7, 0.99]], [[0.5, 0.6, 0.7], [0.5, 0.9, 0.8]], [[0.5] * 3] * 2]
    facts = PLACE | {
        "interval": {name: [[[x - 0.1, x] for x in line] for line in areas[i]] for i, name in enumerate(vectors)},
        "random": {"draws": 50, "low": [[0.5, 0.1, 0.2]] * 2, "high": [[0.5, 0.8, 0.9]] * 2},
        "effect": {"ablated": [[None, 0.02, -0.05], [None, 0.5, 1.25]], "added": [[None, 0.1, 0.2], [None, 0.3, 0.75]]},
        "rank_correlation": {"ablated": {"rho": -0.4, "n": 4}, "added": {"rho": None, "n": 4}},
        "n_val": {"harmful": 6, "harmless": 7},
    }
    return measured("separability", axes, [areas, areas], [areas, areas], facts, [4, 5])


def test_separability_says_which_candidates_tell_prompts_apart_without_effect(separable):
    section = separability(Measured.read(separable))
    said = " ".join(section.said).replace("\N{NO-BREAK SPACE}", " ")
    assert "AUROC 0.900 [0.800, 0.900], 4 and 5 held-out prompts" in said
    assert "Of 50 random directions 95 % have an AUROC between 0.100 and 0.800" in said
    assert "3 of 4 candidates tell held-out prompts apart with an AUROC of 0.95 or more" in said
    assert "takes away −5.0 % to 125.0 % of refusal, and adding one brings about 10.0 % to 75.0 %" in said
    assert "2 of these take away less than 10 %" in said
    assert "rank correlation of −0.40 with the effect of it being ablated." in said
    assert section.table.rows[1] == ["−1 \\n", "2", "0.700 to 0.990", *section.table.rows[1][3:]]
    separable["facts"]["effect"]["ablated"][0] = [None, 0.2, 0.3]
    assert "None of these takes away less" in " ".join(separability(Measured.read(separable)).said)


def test_separability_draws_every_candidate_that_has_scores(separable):
    section = separability(Measured.read(separable))
    assert len(section.figures) == 1 + len(POSITIONS)
    assert len(titles(section.figures[:1])) == 4
    assert "position −1 \\n, layer 2: AUROC 0.990 [0.890, 0.990], 125.0\N{NO-BREAK SPACE}% of refusal" in titles(
        section.figures
    )
    assert len(titles(section.figures[1:])) == 2 * (3 + 3 + 2 + 2)
    assert section.figures[0].count('class="ring"') == 1
    strict(section)


# --- agreement --------------------------------------------------------------------------------------------------


@pytest.fixture
def agreeing():
    axes = {"condition": ["halves", "shuffled", "random"], "position": POSITIONS, "layer": LAYERS}
    mean = [[[None, 0.6, 0.7], [None, 0.9, 0.95]], [[None, 0.1, 0.1], [None, -0.2, 0.1]], [[None, 0.0, 0.0]] * 2]
    sd = [[[None, 0.1, 0.1], [None, 0.05, 0.1]], [[None, 0.4, 0.4]] * 2, [[None, 0.2, 0.2]] * 2]
    facts = PLACE | {
        "d_model": 100,
        "prompts": {"harmful": 9, "harmless": 8},
        "chosen": [[None, 0.85, 0.2], [None, 1.0, 0.7]],
    }
    return measured("agreement", axes, mean, sd, facts, [6, 6, 30])


def test_agreement_says_the_floor_and_who_reaches_it(agreeing):
    section = agreement(Measured.read(agreeing))
    said = " ".join(section.said)
    assert (
        "(4 harmful and 4 harmless each), the direction of layer 1, position −1 \\n has a cosine of 0.900 ± 0.050"
        in said
    )
    assert "the cosine is −0.200 ± 0.400; with random directions it is 0.000 ± 0.200 (by chance 0 ± 0.100)" in said
    assert "agree much more by chance than random ones do" in said
    assert "Of 3 other candidates that of layer 1, position −2 <b> is most like it (cosine 0.850); 1 agree" in said
    assert section.table.rows[0] == ["−2 <b>", "0.600 ± 0.100", "0.200 to 0.850 (median 0.525)"]
    agreeing["sd"][1][1][1] = 0.15
    assert "about as little as random ones do" in " ".join(agreement(Measured.read(agreeing)).said)


def test_agreement_draws_what_there_is(agreeing):
    section = agreement(Measured.read(agreeing))
    told = titles(section.figures)
    assert len(section.figures) == len(POSITIONS)
    assert "layer 2, two halves: 0.950 ± 0.100" in told
    assert "layer 2, with the chosen direction: 0.700" in told
    assert len([title for title in told if title.startswith("layer")]) == 2 * 4
    strict(section)


def test_cosines_between_candidates_are_said_and_drawn_by_pair():
    axes = {"condition": ["found"], "position": POSITIONS, "layer": LAYERS}
    axes |= {"other position": POSITIONS, "other layer": LAYERS}

    def cosine(p, i, q, j):
        return None if 0 in (i, j) else 1.0 if (p, i) == (q, j) else 0.8 if p == q else -0.1 * max(i, j)

    mean = [[[[[cosine(p, i, q, j) for j in range(3)] for q in (0, 1)] for i in range(3)] for p in (0, 1)]]
    facts = PLACE | {"random": {"n": 15, "mean": 0.01, "sd": 0.2, "min": -0.5, "max": 0.4}}
    section = candidate_cosines(Measured.read(measured("candidate-cosines", axes, mean, mean, facts, [1])))
    said = " ".join(section.said)
    assert "two layers have cosines of 0.800 to 0.800" in said
    assert "two positions have cosines of −0.200 to −0.100 (median −0.150)" in said
    assert "random directions they are 0.010 ± 0.200 (−0.50 to 0.40)" in said
    assert "At layer 1 the positions most alike are −2 <b> and −1 \\n (cosine −0.100)" in said
    told = titles(section.figures)
    assert len(told) == 4 * 5 / 2
    assert "layer 2, position −1 \\n with layer 1, position −2 &lt;b&gt;: −0.200" in told
    strict(section)
