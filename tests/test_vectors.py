"""What a condition does to the stream, and that its price is measured under the same thing."""

import pytest
import torch

import small_runs
import tiny
from refusal import pipeline
from refusal.conditions import MAIN, conditions
from refusal.corpora import Corpus
from refusal.direction import Direction
from refusal.interventions import ablate, add, capture
from refusal.judges.read import read_completions
from refusal.losses import cross_entropy, divergence
from refusal.model import load_model
from refusal.prompts import load_prompts
from refusal.records import read_json, read_rows
from refusal.vectors import Vectors

LAYER = 1


@pytest.fixture(scope="module")
def vectors():
    generator = torch.Generator().manual_seed(0)
    width = tiny.shared().network.config.hidden_size
    found, shuffled, worst = (Direction(torch.randn(width, generator=generator), LAYER, -1) for _ in range(3))
    return Vectors(found, shuffled, worst, seed=42)


def stream(vectors, condition, coefficient):
    """Return resid_pre of the layer where the direction is added."""
    model = tiny.shared()
    ids = torch.tensor([model.encode("Why is the sky blue?")])
    with vectors.around(model, condition, coefficient=coefficient), capture(model) as kept, torch.no_grad():
        model.network(input_ids=ids)
    return kept["resid_pre"][LAYER]


@pytest.mark.parametrize("main", MAIN.values())
def test_every_addition_adds_its_own_vector_as_often_as_it_says(vectors, main):
    listed = conditions(main, randoms=3)
    before = stream(vectors, listed[0], -1.0)
    for condition in (one for one in listed if one.kind == "addition"):
        factor = {"half_addition": 0.5, "double_addition": 2.0, "opposite_addition": -1.0}.get(condition.name, 1.0)
        expected = -1.0 * factor * vectors.of(condition).vector
        assert torch.allclose(stream(vectors, condition, -1.0) - before, expected.expand_as(before), atol=1e-4)


def test_controls_are_other_vectors_of_the_same_length_and_the_same_on_every_set(vectors):
    listed = {name: conditions(main, randoms=3) for name, main in MAIN.items()}
    randoms = [vectors.of(one).vector for one in listed["harmful"] if one.source == "random" and one.kind == "ablation"]
    assert len(randoms) == 3
    for i, one in enumerate(randoms):
        assert float(one.norm()) == pytest.approx(vectors.direction.norm, rel=1e-5)
        for other in (*randoms[:i], vectors.direction.vector):
            assert float(torch.cosine_similarity(one, other, dim=0).abs()) < 0.9
    first = {name: next(one for one in found if one.source == "random") for name, found in listed.items()}
    assert torch.equal(vectors.of(first["harmful"]).vector, vectors.of(first["harmless"]).vector)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("priced")
    return folder, pipeline.run(small_runs.config(folder, **small_runs.LEAST))


def test_prices_are_those_of_the_condition_that_they_stand_under(run):
    folder, out = run
    model, direction = load_model(str(folder / "model")), Direction.load(out / "direction.safetensors")
    answers = read_completions(out / "completions" / "harmless.none.jsonl")
    documents = Corpus("own", tuple((answer.prompt, answer.response) for answer in answers), "").documents
    prompts = [answer.prompt for answer in answers]
    inside = {
        "ablation": lambda: ablate(model, direction),
        "addition": lambda: add(model, direction, coefficient=-1.0),
        "random_addition": lambda: add(model, direction.random(42), coefficient=-1.0),
    }
    for name, under in inside.items():
        with under():
            loss = cross_entropy(model, documents)
        stored = read_rows(out / "losses" / f"completions.{name}.jsonl")
        assert [row["sum"] for row in stored] == pytest.approx(loss.sums, rel=1e-4)
        kl = divergence(model, prompts, under=under, max_new_tokens=small_runs.NEW)
        stored = read_rows(out / "losses" / f"kl.{name}.jsonl")
        assert [row["first"] for row in stored] == pytest.approx(kl.first.sums, rel=1e-3, abs=1e-6)
    with add(model, direction, coefficient=1.0):  # the other sign is another number
        other = cross_entropy(model, documents)
    stored = read_rows(out / "losses" / "completions.addition.jsonl")
    assert [row["sum"] for row in stored] != pytest.approx(other.sums, rel=1e-4)


def test_draws_take_other_prompts_where_there_are_more_than_are_drawn(tmp_path):
    own = small_runs.config(tmp_path, n_train=4, n_val=3, **small_runs.LEAST | {"draws": 1})
    out = pipeline.run(own)
    row = read_json(out / "draws" / "43.json")
    assert "failed" in row or row["cosine_same_place"] < 0.9999
    assert load_prompts(own.harmful).counts["train"] > own.n_train
