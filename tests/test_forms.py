"""Four forms of one direction on the bundled chat model, by the commands that a user types, agree with the hooks."""

import pytest
import torch

from refusal.cli import main
from refusal.direction import Direction
from refusal.extraction import mean_difference
from refusal.generation import generate
from refusal.interventions import add
from refusal.model import load_model
from refusal.weights import load_direction
from refusal.weights.proof import load_export
from shell import printed

LAYER = 7


@pytest.fixture(scope="module")
def saved(bundled, harmful, harmless, tmp_path_factory):
    """A direction of the bundled model, as a file."""
    candidates = mean_difference(bundled, harmful.train[:32], harmless.train[:32])
    path = tmp_path_factory.mktemp("forms") / "direction.safetensors"
    candidates.at(-1, LAYER).save(path)
    return str(path)


def test_four_forms_of_one_direction_agree_on_the_bundled_model(saved, bundled, harmless, tmp_path, capsys):
    proofs = {}
    for form in ("checkpoint", "lora"):
        out = str(tmp_path / form)
        made, code = printed(capsys, "export", "organism", "--direction", saved, "--as", form, "--out", out)
        assert code == 0
        assert made["coverage"]["complete"]
        assert made["coverage"]["exact"]
        assert all(writer["edited"] for writer in made["coverage"]["writers"])
        proof, code = printed(capsys, "verify-export", "organism", out, "--direction", saved, "--n", "4")
        assert code == 0
        assert proof["holds"]
        assert proof["plain_agreement"] < 0.5 < 1.0 == proof["agreement"]  # the effect is there, the same in both forms
        proofs[form] = proof
    # The adapter is float32; the checkpoint is rounded to bfloat16 once, as the source is.
    assert proofs["lora"]["share"] < 1e-5 < proofs["checkpoint"]["share"] < 0.02

    vector, adapter = str(tmp_path / "vector.gguf"), str(tmp_path / "addition")
    printed(capsys, "export", "organism", "--direction", saved, "--as", "gguf", "--out", vector)
    again = load_direction(vector)  # back from llama.cpp's format, then in a third form
    assert again.layer == Direction.load(saved).layer
    words = ("--as", "lora", "--intervention", "addition")
    printed(capsys, "export", "organism", "--direction", vector, *words, "--out", adapter)
    prompts = harmless.test[:6]
    with add(bundled, Direction.load(saved)):
        hooked = generate(bundled, prompts, max_new_tokens=16)
    assert generate(load_export(adapter, load_model()), prompts, max_new_tokens=16) == hooked
    assert generate(bundled, prompts, max_new_tokens=16) != hooked


def test_an_edit_is_recovered_from_the_checkpoint_and_another_direction_fails_the_proof(saved, tmp_path, capsys):
    out, recovered = str(tmp_path / "edited"), str(tmp_path / "recovered.safetensors")
    printed(capsys, "export", "organism", "--direction", saved, "--out", out)
    audit, code = printed(capsys, "audit", "organism", out, "-o", recovered)
    assert code == 0
    assert "it was removed" in audit["verdict"]
    unit = Direction.load(saved).unit
    assert abs(float(load_direction(recovered).unit.double() @ unit.double())) > 0.999
    other = str(tmp_path / "other.safetensors")
    Direction.load(saved).random(0).save(other)
    proof, code = printed(capsys, "verify-export", "organism", out, "--direction", other, "--n", "4")
    assert code == 1
    assert not proof["holds"]


def test_an_addition_is_held_against_the_hook_of_addition(saved, tmp_path, capsys):
    out = str(tmp_path / "added")
    words = ("--direction", saved, "--intervention", "addition", "--layer", "5", "--coefficient", "0.5")
    printed(capsys, "export", "organism", *words, "--as", "lora", "--out", out)
    proof, code = printed(capsys, "verify-export", "organism", out, *words, "--n", "4")
    assert (code, proof["agreement"]) == (0, 1.0)
    assert proof["share"] < 1e-4
    proof, code = printed(capsys, "verify-export", "organism", out, *words[:-1], "1.0", "--n", "4")
    assert code == 1
    assert not proof["holds"]


def test_measured_results_stand_in_the_card(saved, tmp_path, capsys):
    (tmp_path / "results.json").write_text('{"harmful refused": "3/200"}')
    words = ("--direction", saved, "--effect", str(tmp_path / "results.json"), "--out", str(tmp_path / "edited"))
    printed(capsys, "export", "organism", *words)
    assert "3/200" in (tmp_path / "edited" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--as", "gguf", "--intervention", "ablation"], "only adds"),
        (["--as", "steered", "--intervention", "ablation"], "can only add"),
        (["--as", "lora", "--coefficient", "2"], "Ablation has no coefficient"),
        (["--as", "lora", "--tied", "refuse"], "--tied is for checkpoints"),
        (["--as", "lora", "--no-checksums"], "--no-checksums are for checkpoints"),
    ],
)
def test_a_form_that_cannot_hold_what_is_asked_says_so(words, message, saved, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["export", "organism", "--direction", saved, "--out", str(tmp_path / "x"), *words])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_nothing_is_written_over_and_a_narrow_direction_is_refused(saved, tmp_path, capsys):
    narrow = tmp_path / "narrow.safetensors"
    Direction(torch.ones(64), LAYER, -1).save(narrow)
    for words, message in (
        (["--direction", saved, "--out", saved], "is there already"),
        (["--direction", str(narrow), "--out", str(tmp_path / "c.gguf")], "64 components"),
    ):
        with pytest.raises(SystemExit):
            main(["export", "organism", "--as", "gguf", *words])
        assert message in capsys.readouterr().err
    assert Direction.load(saved).layer == LAYER
    assert not (tmp_path / "c.gguf").exists()
