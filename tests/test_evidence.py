"""The evidence section of the report: what it says follows from the numbers, and only from them."""

from pathlib import Path

import pytest

from refusal.findings import Findings
from refusal.formats import points
from refusal.labels import label_of, name_of
from refusal.report import evidence
from refusal.report.costs import costs

PAIR = {"set": "harmful", "judge": "substring", "measure": "refused", "n": 200, "p_value": 0.5}


def costs_of(results, choices=None):
    """What the page says of costs in results of a run that has nothing else."""
    return costs(Findings(Path("none"), {"choices": choices}, results, [], None, None, None, {}))


def row(first, second, difference, p_holm):
    return PAIR | {
        **{"first": first, "second": second, "difference": difference, "low": difference - 0.01},
        **{"high": difference + 0.01, "p_holm": p_holm},
    }


def test_a_difference_is_said_by_its_corrected_p():
    rows = [
        row("ablation", "none", -0.9, 1e-9),
        row("random_ablation", "none", -0.01, 0.06),
        row("ablation", "shuffled_ablation", -0.5, 0.049),
        row("weights", "ablation", 0.0, 1.0),
    ]
    found = evidence.tests({"comparisons": rows})
    assert [test["set"] for test in found] == ["harmful"]
    said = [line["cells"][0]["said"] for line in found[0]["lines"]]
    assert said == ["differs", "no difference shown", "differs", "no difference shown"]
    assert found[0]["lines"][0]["cells"][0] == {
        **{"difference": "−90.0", "interval": "−91.0 to −89.0", "p": "< 0.0001", "said": "differs"}
    }
    assert found[0]["said"][0] == (
        "Directional ablation against no intervention: refusals −90.0 points [−91.0, −89.0], differs."
    )
    assert len(found[0]["said"]) == 3  # not the control against nothing


@pytest.mark.parametrize(("share", "text"), [(0.0004, "0.0"), (-0.0004, "0.0"), (0.5, "+50.0"), (-1.0, "−100.0")])
def test_points_have_a_sign_where_there_is_one(share, text):
    assert points(share) == text


def test_losses_stand_beside_their_change_and_without_interval_where_there_is_none():
    mean = {"ce_loss": 2.0, "perplexity": 7.4, "n_tokens": 1200}
    change = {"change": -0.25, "low": -0.5, "high": 0.0}
    rows = {"none": mean | {"n_documents": 9, "low": -1.5, "high": 2.5}, "ablation": mean | {"change": change}}
    found = costs_of({"losses": {"texts": rows, "completions": {"none": mean}}})["losses"]
    notes = [head["note"].rpartition("; ")[2] for head in found["heads"]]
    assert notes == ["9 documents, 1,200 tokens", "1,200 tokens"]
    none, ablation = found["lines"]
    assert none["cells"][0] == {"value": "2.000", "change": "", "interval": "−1.500 to 2.500"}
    assert none["cells"][1]["interval"] == ""
    assert ablation["cells"][0] == {"value": "2.000", "change": "−0.250", "interval": "−0.500 to 0.000"}
    assert ablation["cells"][1]["value"] == "–"


def test_other_draws_are_told_with_their_failures():
    one = {"n": 1, "mean": 0.5, "sd": None, "min": 0.5, "max": 0.5}
    layers = {"n": 2, "mean": 7.5, "sd": 0.7, "min": 7, "max": 8}
    drawn = {"n": 3, "failed": 1, "layer": layers, "position": one | {"min": -1, "max": -1}}
    drawn |= {"cosine": one, "cosine_same_place": one, "cosine_random": one | {"min": -0.1}}
    said = " ".join(evidence.draws({"layer": 7, "position": -4, "draws": drawn}))
    assert "3 more times" in said
    assert "1 of them found no direction" in said
    assert "layer 7 to 8 (here 7) and position −1 (here −4)" in said
    assert "random vectors: −0.100 to 0.500" in said


def test_a_run_without_evidence_has_none():
    empty = costs_of({})
    assert (evidence.tests({}), empty["losses"], empty["divergences"], empty["carried"], evidence.draws({})) == (
        [],
        None,
        [],
        "",
        [],
    )


def test_costs_stand_in_reading_order_whatever_the_order_of_files():
    row = {"first": {"kl": 0.1}, "whole": {"kl": 0.1, "n_documents": 3}}
    names = ("ablation", "addition", "none", "random_ablation", "random_addition")
    found = costs_of({"kl_on_answers": dict.fromkeys(names, row)})["divergences"]
    assert [line["condition"] for line in found] == [
        *("No intervention", "Directional ablation", "Random direction ablated"),
        *("Activation addition", "Random direction added"),
    ]
    assert [line["control"] for line in found] == [False, False, True, False, True]


def test_conditions_have_names_for_readers():
    assert name_of("random_ablation_3") == "Random direction ablated 3"
    assert name_of("double_addition") == "Activation addition, double"
    assert name_of("double_addition", 2.0) == "Activation addition, c = 2"
    assert label_of("random_addition_2").note.startswith("control of addition")
    assert (name_of("steered"), label_of("steered").note) == ("steered", "")


def test_additions_among_the_costs_have_their_coefficient_which_is_not_that_of_harmless_answers():
    row = {"first": {"kl": 0.1}, "whole": {"kl": 0.1, "n_documents": 3}}
    kl = {"kl_on_answers": dict.fromkeys(("ablation", "addition", "random_addition"), row), "costs_coefficient": -1.0}
    names = [line["condition"] for line in costs_of(kl)["divergences"]]
    assert names == ["Directional ablation", "Activation addition, c = −1", "Random direction added, c = −1"]


def test_why_a_cost_was_not_measured_is_said():
    reasons = {"capabilities": "none: not installed", "texts": "none: large downloads"}
    found = costs_of({}, reasons)
    assert found["capabilities_missing"] == "none: not installed"
    assert found["losses_missing"] == ["Texts: none: large downloads"]


def test_what_the_direction_costs_beyond_its_controls_is_said():
    def cost(measure, second, difference, p):
        return {"measure": measure, "first": "ablation", "second": second, "difference": difference, "p_holm": p}

    rows = [
        cost("loss on texts", "random_ablation", -0.02, 0.2),
        cost("loss on texts", "shuffled_ablation", 0.013, 0.001),
        cost("mmlu", "random_ablation", -0.02, 0.6),
    ]
    found = costs_of({"costs_against_controls": rows})["against"]
    assert found["heads"] == ["Directional ablation"]
    assert found["lines"] == [
        ("loss on texts", [{"reach": "−0.020 to 0.013", "said": "differs from 1 of 2"}]),
        ("mmlu", [{"reach": "−2.0", "said": "no difference shown"}]),
    ]


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("my texts", "my texts (the paper: the Pile); 1,200 tokens"),
        ("huggingface.co/the-pile", "huggingface.co/the-pile; 1,200 tokens"),
        (None, "(the paper: the Pile); 1,200 tokens"),
    ],
)
def test_documents_are_said_to_be_what_they_are_beside_what_the_paper_has(source, note):
    rows = {"none": {"ce_loss": 2.0, "perplexity": 7.4, "n_tokens": 1200, "low": 1.0, "high": 3.0}}
    record = {"corpora": {"texts": {"source": source}}}
    findings = Findings(Path("none"), record, {"losses": {"texts": rows}}, [], None, None, None, {})
    assert costs(findings)["losses"]["heads"][0]["note"] == note
