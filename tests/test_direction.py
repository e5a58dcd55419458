"""Directions and candidates: what they refuse, what they keep, and that a file gives back what was saved."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from refusal.direction import Candidates, Direction
from refusal.errors import BadInput

VECTOR = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)


def candidates() -> Candidates:
    generator = torch.Generator().manual_seed(0)
    harmful = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    harmless = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    harmful[:, 0] = harmless[:, 0] * (1 + 1e-15)  # layer 0 under a fixed template: equal but for rounding
    return Candidates(harmful, harmless, ("<end>", "\n"), {"model": "toy", "harmful": 5})


def test_vector_and_unit_are_two_things():
    direction = Direction(VECTOR, 1, -2)
    assert direction.norm == 5
    assert direction.unit.tolist() == pytest.approx([0.6, 0, 0.8])
    assert torch.equal(direction.vector, VECTOR)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_vector_without_a_direction_is_refused(bad):
    with pytest.raises(BadInput, match=r"position -2, layer 1 is zero or not finite"):
        Direction(torch.full((3,), bad), 1, -2)


@given(st.integers(0, 10_000))
def test_the_random_control_has_the_same_length_layer_and_another_direction(seed):
    direction = Direction(torch.randn(64, generator=torch.Generator().manual_seed(3)), 4, -1, {"model": "toy"})
    control = direction.random(seed)
    assert control.norm == pytest.approx(direction.norm, rel=1e-6)
    assert (control.layer, control.position, control.origin) == (4, -1, {"model": "toy", "random_seed": seed})
    assert control.vector.dtype == direction.vector.dtype
    assert abs(float(control.unit @ direction.unit)) < 0.7
    assert torch.equal(control.vector, direction.random(seed).vector)
    assert not torch.equal(control.vector, direction.random(seed + 1).vector)


def test_a_saved_direction_comes_back_with_its_origin(tmp_path):
    saved = Direction(VECTOR, 7, -3, {"model": "toy", "bypass": -4.5, "counts": [1, 2]})
    path = tmp_path / "direction.safetensors"
    saved.save(path)
    loaded = Direction.load(str(path))
    assert torch.equal(loaded.vector, VECTOR)
    assert loaded.vector.dtype == torch.float64
    assert (loaded.layer, loaded.position, loaded.origin) == (7, -3, saved.origin)
    assert [p.name for p in tmp_path.iterdir()] == ["direction.safetensors"]


def test_saved_candidates_come_back_whole(tmp_path):
    saved = candidates()
    saved.save(tmp_path / "candidates.safetensors")
    loaded = Candidates.load(tmp_path / "candidates.safetensors")
    assert torch.equal(loaded.harmful, saved.harmful)
    assert torch.equal(loaded.harmless, saved.harmless)
    assert (loaded.tokens, loaded.origin) == (saved.tokens, saved.origin)


def test_a_direction_cut_from_candidates_saves_its_own_numbers_only(tmp_path):
    candidates().at(-1, 2).save(tmp_path / "d.safetensors")
    assert (tmp_path / "d.safetensors").stat().st_size < 400  # the official file holds every candidate


def broken(tmp_path, name):
    path = tmp_path / f"{name}.safetensors"
    if name == "text":
        path.write_text("not a tensor file")
    elif name == "empty":
        path.touch()
    elif name == "foreign":
        save_file({"vector": VECTOR}, path)
    elif name == "candidates":
        candidates().save(path)
    elif name == "other version":
        save_file({"vector": VECTOR}, path, {"refusal": '{"format": "99", "kind": "direction"}'})
    elif name == "no header":
        save_file({"vector": VECTOR}, path, {"refusal": "[]"})
    elif name == "no layer":
        save_file({"vector": VECTOR}, path, {"refusal": '{"format": "1", "kind": "direction"}'})
    elif name == "cut short":
        Direction(VECTOR, 1, -1).save(path)
        path.write_bytes(path.read_bytes()[:-5])
    return path


@pytest.mark.parametrize(
    "name",
    ["missing", "text", "empty", "foreign", "candidates", "other version", "no header", "no layer", "cut short"],
)
def test_a_file_that_is_not_a_direction_is_refused_by_name(tmp_path, name):
    path = broken(tmp_path, name)
    with pytest.raises(BadInput, match="direction file written by this package") as caught:
        Direction.load(path)
    assert str(path) in str(caught.value)


def test_a_direction_is_not_candidates(tmp_path):
    Direction(VECTOR, 1, -1).save(tmp_path / "d.safetensors")
    with pytest.raises(BadInput, match="candidates file"):
        Candidates.load(tmp_path / "d.safetensors")


def test_differences_are_harmful_minus_harmless_by_negative_position():
    c = candidates()
    assert c.positions == range(-2, 0)
    assert c.n_layers == 3
    assert torch.equal(c.at(-2, 1).vector, c.harmful[0, 1] - c.harmless[0, 1])
    assert (c.at(-2, 1).layer, c.at(-2, 1).position) == (1, -2)


def test_means_that_are_equal_but_for_rounding_do_not_differ():
    c = candidates()
    assert [[c.differs(p, layer) for layer in range(3)] for p in c.positions] == [[False, True, True]] * 2


@pytest.mark.parametrize(("position", "layer"), [(0, 1), (-3, 1), (-1, 3), (-1, -1)])
def test_a_candidate_that_is_not_there_is_refused(position, layer):
    with pytest.raises(BadInput, match=f"no candidate at position {position}, layer {layer}"):
        candidates().at(position, layer)


def test_the_same_direction_is_saved_as_the_same_bytes(tmp_path):
    direction = Direction(VECTOR, 1, -1, {"model": "m", "harmful": 3, "harmless": 4})
    for i in range(12):
        direction.save(tmp_path / f"{i}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_direction_is_shown_by_where_it_was_read_not_by_its_numbers():
    shown = repr(Direction(torch.ones(300), 3, -1, {"model": "tiny"}))
    assert "layer=3" in shown
    assert "tensor" not in shown
    assert len(shown) < 100
