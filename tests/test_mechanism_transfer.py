"""A direction where it was not found: rates of a plain loop, directions as the pipeline finds them, and controls."""

from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import ANY
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

import refusal
import small_runs
import tiny
import zoo
from refusal import engine
from refusal.errors import BadInput, BadSetting, NoDirection, TooFewPrompts
from refusal.extraction import filter_prompts
from refusal.interventions import capture
from refusal.judges import judge
from refusal.mechanism import (
    Measurement,
    Side,
    Source,
    Subject,
    find_source,
    measure_transfer,
    surroundings,
    transfer_of,
)
from refusal.mechanism.transfer import compare
from refusal.model import load_model
from refusal.prompts import Prompt, PromptSet, load_prompts
from refusal.refusal_tokens import RefusalTokens
from refusal.report.measured import Measured
from refusal.report.sections import section_of
from refusal.report.transfer import section, works
from refusal.rule import Limits
from refusal.statistics import count

TOKENS = RefusalTokens(small_runs.REFUSAL_TOKENS, ("even",) * len(small_runs.REFUSAL_TOKENS), "given")
ALL = Limits(max_kl=1e9, min_induce=-1e9, prune_layers=0.0)
# Grouped queries, parallel blocks, experts, norms behind sublayers, Conv1D, a state space.
KINDS = ("llama", "cohere", "mixtral", "gemma2", "gpt2", "mamba2")


def prompt_set(name: str, *texts: str) -> PromptSet:
    prompts = tuple(map(Prompt, texts))
    return PromptSet(name, train=prompts, val=prompts, test=prompts)


def side(name: str, model, *, max_new_tokens: int = 2) -> Side:
    harmful, harmless = prompt_set("harmful", *tiny.PROMPTS[:3]), prompt_set("harmless", *tiny.PROMPTS[2:])
    return Side(name, model, harmful, harmless, max_new_tokens=max_new_tokens)


def source(name: str, model, direction) -> Source:
    train = {"harmful": tiny.PROMPTS[:3], "harmless": tiny.PROMPTS[3:]}
    return Source(name, direction, model, refusal.mean_difference(model, *train.values()), train)


def planted(kind: str):
    """A model that says "I cannot" where its last stream lies along a direction, as it does on the first prompt."""
    plain = zoo.chat_model(kind)
    with capture(plain, ("resid_post",), positions=slice(-1, None)) as kept:
        engine.forward(plain, [plain.encode(tiny.PROMPTS[0])])
    vector = kept["resid_post"][-1][0, 0].double()
    direction = refusal.Direction(4 * vector / vector.norm(), 1, -1)
    model = load_model(zoo.network(kind), tiny.tokenizer())
    with torch.no_grad():
        row = model.network.get_output_embeddings().weight[model.tokenizer.convert_tokens_to_ids("I cannot")]
        row.copy_(1.5 * direction.unit)
    return model, direction


class Slow:
    """Ablation and addition of one direction in a llama, by hooks of torch's own."""

    def __init__(self, model, change: str, direction):
        self.layers, self.change = model.network.model.layers, change
        self.unit, self.vector, self.layer = direction.unit.float(), direction.vector.float(), direction.layer

    def without(self, x):
        return x - (x @ self.unit)[..., None] * self.unit

    def __enter__(self):
        if self.change == "added":
            block = self.layers[self.layer]
            self.handles = [block.register_forward_pre_hook(lambda _m, args: (args[0] + self.vector, *args[1:]))]
            return
        self.handles = []
        for block in self.layers:
            self.handles.append(block.register_forward_pre_hook(lambda _m, args: (self.without(args[0]), *args[1:])))
            attention = lambda _m, _a, out: (self.without(out[0]), *out[1:])  # noqa: E731
            self.handles.append(block.self_attn.register_forward_hook(attention))
            self.handles.append(block.mlp.register_forward_hook(lambda _m, _a, out: self.without(out)))

    def __exit__(self, *_error):
        for handle in self.handles:
            handle.remove()


def slow_rate(model, prompts, length: int, around) -> float:
    """One prompt alone, a whole pass a token, no cache."""
    refused = 0
    for prompt in prompts:
        tokens = model.encode(prompt.instruction)
        start = len(tokens)
        with around, torch.no_grad():
            for _ in range(length):
                tokens.append(int(model.network(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
                if tokens[-1] == model.tokenizer.eos_token_id:
                    break
        refused += "I cannot" in model.tokenizer.decode(tokens[start:])
    return refused / len(prompts)


def test_rates_are_those_of_a_plain_loop():
    model, direction = planted("llama")
    found = [source("own", model, direction), source("noise", model, tiny.direction(model, layer=0, norm=9.0))]
    target = side("here", model, max_new_tokens=4)
    measured = measure_transfer(found, [target], seed=3, coefficient=-1.0)
    control, seen = found[1].direction.random(3), set()  # of the longer one
    for change, prompts in (("ablated", target.harmful.test), ("added", target.harmless.test)):
        vectors = {"untouched": None, "own": direction, "noise": found[1].direction, "random": control}
        for name, used in vectors.items():
            around = Slow(model, change, replace(used, vector=-used.vector)) if used else nullcontext()
            rate = slow_rate(model, prompts, 4, around)
            assert float(measured.at("here", change, name)) == pytest.approx(rate), (change, name)
            row = measured.facts["rates"]["here"][change][name]
            assert (row["rate"], row["n"]) == (pytest.approx(rate), 3)
            seen.add((change, rate))
    assert len(seen) > 3  # else nothing was compared
    assert measured.n == (3,)
    assert measured.facts["cosines"]["between"] == [[None, ANY], [None, None]]  # at layer 0 nothing differs


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_has_its_own_direction_in_every_family(kind):
    model, direction = planted(kind)
    found = [source("own", model, direction), source("noise", model, tiny.direction(model, layer=2))]
    target = side("here", model)
    measured = measure_transfer(found, [target])
    assert measured.at("here", "ablated", "untouched") > 0
    assert measured.at("here", "ablated", "own") == 0
    for one in found:
        for change, around, prompts in (
            ("ablated", refusal.ablate(model, one.direction), target.harmful.test),
            ("added", refusal.add(model, one.direction), target.harmless.test),
        ):
            with around:
                rates = [judge(refusal.generate(model, [prompt], max_new_tokens=2)).k for prompt in prompts]
            assert float(measured.at("here", change, one.name)) == pytest.approx(np.mean(rates))


def test_a_direction_of_another_shape_has_no_rate_and_the_reason_is_told():
    model, deeper = tiny.shared(), tiny.chat_model(layers=4)
    found = [source("own", model, tiny.direction(model)), source("deep", deeper, tiny.direction(deeper))]
    measured = measure_transfer(found, [side("here", model)])
    assert np.isnan(measured.at("here", "added", "deep"))
    assert measured.at("here", "added", "own") == 0
    assert list(measured.facts["impossible"]["here"]) == ["deep"]
    assert "number of layers" in measured.facts["impossible"]["here"]["deep"]
    assert measured.facts["cosines"]["between"] == [[None, None], [None, None]]
    alone = measure_transfer(found[1:], [side("here", model)])
    assert list(alone.facts["rates"]["here"]["added"]) == ["untouched"]
    assert list(measured.facts["rates"]["here"]["ablated"]) == ["untouched"]  # nothing is refused there
    for names in (["own", "own"], ["random"]):
        with pytest.raises(BadInput, match="its own"):
            measure_transfer([replace(found[0], name=name) for name in names], [side("here", model)])


def test_cosines_are_taken_at_the_layer_of_the_row_and_each_at_its_own_position():
    model = tiny.shared()
    made = [refusal.mean_difference(model, tiny.PROMPTS[:k], tiny.PROMPTS[k:]) for k in (2, 3)]
    places = [(-1, 2), (-3, 1)]
    found = [
        Source(name, own.at(*place), model, own, {"harmful": tiny.PROMPTS[:2], "harmless": tiny.PROMPTS[2:]})
        for name, own, place in zip("ab", made, places, strict=True)
    ]
    told = compare(found)
    for i, j in ((0, 1), (1, 0)):
        one, other = made[i].at(*places[i]).vector, made[j].at(places[j][0], places[i][1]).vector
        assert told["between"][i][j] == pytest.approx(float(cosine_similarity(one, other, dim=0)))
    assert told["between"][0][0] is None
    assert [set(one) for one in told["itself"]] == [{"halves", "mixed up"}] * 2


# --- where directions come from ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Side:
    """A tiny model with prompts that it "refuses", and prompts that it does not."""
    sets = small_runs.save_prompts(tmp_path_factory.mktemp("prompts"))
    return Side("own", tiny.shared(), load_prompts(sets["harmful"]), load_prompts(sets["harmless"]), max_new_tokens=3)


def test_a_source_is_what_the_pipeline_finds(asked):
    found = find_source(asked, tokens=TOKENS, limits=ALL)
    kept = {
        (name, part): filter_prompts(asked.model, getattr(sets, part), tokens=TOKENS.tensor, refused=name == "harmful")
        for name, sets in (("harmful", asked.harmful), ("harmless", asked.harmless))
        for part in ("train", "val")
    }
    candidates = refusal.mean_difference(asked.model, kept["harmful", "train"], kept["harmless", "train"])
    validation = kept["harmful", "val"], kept["harmless", "val"]
    best = refusal.select_direction(asked.model, candidates, *validation, tokens=TOKENS, limits=ALL).best
    assert (found.direction.position, found.direction.layer) == (best.position, best.layer)
    torch.testing.assert_close(found.direction.vector, best.vector)
    assert found.train == {"harmful": kept["harmful", "train"], "harmless": kept["harmless", "train"]}
    assert not found.borrowed


def test_where_the_rule_finds_none_a_place_may_be_borrowed_and_that_is_said(asked):
    place = tiny.direction(asked.model, layer=2)
    none = Limits(max_kl=-1.0)
    with pytest.raises(NoDirection):
        find_source(asked, tokens=TOKENS, limits=none)
    found = find_source(asked, tokens=TOKENS, limits=none, place=place)
    assert (found.direction.position, found.direction.layer) == (-1, 2)
    assert "passes the selection rule" in found.borrowed
    swapped = replace(asked, harmful=asked.harmless, harmless=asked.harmful)  # all are treated as the other class is
    with pytest.raises(TooFewPrompts):
        find_source(swapped, tokens=TOKENS)
    other = find_source(swapped, tokens=TOKENS, place=place)
    assert "Filtering left 0" in other.borrowed
    assert other.train == {"harmful": asked.harmless.train, "harmless": asked.harmful.train}
    torch.testing.assert_close(other.direction.vector, -found.direction.vector)


# --- what a run measures ----------------------------------------------------------------------------------------


def subject(asked: Side, **more) -> Subject:
    parts = {
        name: {kind: getattr(getattr(asked, kind), split) for kind in ("harmful", "harmless")}
        for name, split in (("train", "train"), ("val", "val"), ("tests", "test"))
    }
    own = tiny.direction(asked.model, layer=2)
    return Subject(asked.model, own, TOKENS, **parts, limits=ALL, max_new_tokens=3, **more)


def test_a_run_is_carried_to_its_base_model_and_without_one_nowhere(asked, tmp_path):
    with pytest.raises(BadSetting, match="--base"):
        transfer_of(subject(asked))
    tiny.network(seed=3).save_pretrained(tmp_path)
    found = transfer_of(subject(asked, base=str(tmp_path)))
    assert found.axes["condition"] == ("chat", "base")
    assert found.axes["vector"] == ("untouched", "chat", "base", "random")
    assert found.n == (small_runs.SIZES["test"],) * 2
    assert found.facts["sources"]["chat"]["borrowed"] == ""
    assert found.facts["sources"]["chat"]["layer"] == 2
    found.save(tmp_path / "transfer.json")
    assert Measurement.load(tmp_path / "transfer.json").facts["rates"] == found.facts["rates"]


def test_the_bundled_model_is_carried_to_all_that_is_shipped(bundled, harmful, harmless, monkeypatch):
    asked, measured = [], []

    def find(one, **how):
        asked.append((one.name, how["place"]))
        if how["place"] is None:
            raise NoDirection("There is none.")
        return Source(one.name, how["place"], one.model, candidates, {})

    def keep(*given, **how):
        measured.append((given, how))
        return Measurement("transfer", {}, np.zeros(()), np.zeros(()), ())

    monkeypatch.setattr(surroundings, "find_source", find)
    monkeypatch.setattr(surroundings, "measure_transfer", keep)
    candidates = refusal.mean_difference(bundled, harmful.train[:4], harmless.train[:4])
    direction = candidates.at(-4, 7)
    parts = {
        part: {"harmful": getattr(harmful, split)[:9], "harmless": getattr(harmless, split)[:8]}
        for part, split in (("train", "train"), ("val", "val"), ("tests", "test"))
    }
    base = refusal.organism.checkpoint("base")
    found = transfer_of(Subject(bundled, direction, TOKENS, **parts, base=str(base), seed=4))
    ((sources, targets), how) = measured[0]
    names = ["chat", "chat B", "think", "think B", "think aloud", "base"]
    assert [one.name for one in targets] == names
    assert asked == [(name, direction if name in ("chat B", "base") else None) for name in names[1:]]
    assert [one.name for one in sources] == ["chat", "chat B", "base"]
    assert found.facts["without a direction"] == dict.fromkeys(("think", "think B", "think aloud"), "There is none.")
    assert how == {"n": 8, "coefficient": 1.0, "seed": 4}
    by = {one.name: one for one in targets}
    assert by["chat B"].harmful.test == load_prompts("harmful-b").test
    assert "".join(by["think"].model.post_instruction_tokens).endswith("</think>\n\n")
    assert by["think aloud"].model.post_instruction == bundled.post_instruction
    assert by["base"].model.network is not bundled.network


@pytest.fixture(scope="module")
def carried(bundled, harmful, harmless) -> Measurement:
    """The bundled direction, and as a second source a random one of the same length, in its two languages."""
    train = {"harmful": harmful.train[:32], "harmless": harmless.train[:32]}
    candidates = refusal.mean_difference(bundled, train["harmful"], train["harmless"])
    direction = candidates.at(-4, 7)
    drawn = replace(
        candidates, harmful=torch.randn(candidates.harmful.shape, generator=torch.Generator().manual_seed(0))
    )
    sources = [
        Source("chat", direction, bundled, candidates, train),
        Source("noise", direction.random(5), bundled, drawn, train, borrowed="It is noise (made up). Leave it."),
    ]
    other = load_prompts("harmful-b"), load_prompts("harmless-b")
    sides = [
        Side("chat", bundled, harmful, harmless, max_new_tokens=8),
        Side("chat B", bundled, *other, note="in language B", max_new_tokens=8),
    ]
    return measure_transfer(sources, sides, n=12, seed=1)


def test_the_bundled_direction_works_in_the_other_language_and_random_ones_work_nowhere(carried):
    for target, by in carried.facts["rates"].items():
        for change, cells in by.items():
            assert works(cells["chat"], cells["untouched"], change), (target, change)
            for control in ("noise", "random"):
                assert not works(cells[control], cells["untouched"], change), (target, change, control)
    assert carried.at("chat B", "ablated", "untouched") > 0.2  # else there was nothing to take away
    halves, mixed = (carried.facts["cosines"]["itself"][0][name] for name in ("halves", "mixed up"))
    assert halves["mean"] > 0.9 > abs(mixed["mean"])
    assert abs(carried.facts["cosines"]["between"][0][1]) < 0.5


def test_the_section_says_where_it_works_and_the_matrix_every_rate(carried):
    shown = section_of("transfer", carried.record(), "here")
    text = " ".join(shown.said)
    assert "ablated it takes refusal away also in chat B; added it brings refusal about also in chat B." in text
    assert "that of chat in 2 of 2 (chat and chat B); that of noise in 0 of 2" in text
    assert "A random direction, as long as the longest of these, changes no rate" in text
    assert "noise (it is noise)" in text
    assert "“chat B” is in language B." in text
    for picture in (*shown.figures, shown.key):
        ElementTree.fromstring(picture)
    for figure, change in zip(shown.figures, ("ablated", "added"), strict=False):
        for target, by in carried.facts["rates"].items():
            for vector, cell in by[change].items():
                assert f"<title>{target}, {vector}: {cell['refused']}/12 = " in figure
        assert figure.count('class="ring"') == 2  # the framed cells
    assert [row[:2] for row in shown.table.rows] == [["chat", "yes"], ["noise", "no"]]


def test_nothing_works_where_most_answers_have_no_verdict():
    none, all_of_two = count([False] * 32).record("refused"), count([True] * 2 + [None] * 30).record("refused")
    assert not works(all_of_two, none, "added")
    assert works(count([True] * 20 + [None] * 12).record("refused"), none, "added")
    assert not works(none, none, "ablated")


def test_the_section_tells_what_has_no_rate(carried):
    record = carried.record()
    rates = {
        target: {change: dict(cells) for change, cells in by.items()} for target, by in record["facts"]["rates"].items()
    }
    rates["chat"]["ablated"] = {"untouched": {"refused": 0, "n": 16, "rate": 0.0, "low": 0.0, "high": 0.2}}
    rates["chat B"]["added"]["chat"] = {"refused": 0, "n": 0, "rate": None, "low": 0.0, "high": 1.0, "undetermined": 16}
    del rates["chat B"]["added"]["noise"]
    facts = {**record["facts"], "rates": rates, "impossible": {"chat": {}, "chat B": {"noise": "the <width> is 3"}}}
    shown = section(
        Measured.read(
            {**record, "facts": {**facts, "without a direction": {"base": "Nothing (0) was left. Give more."}}}
        )
    )
    text = " ".join(shown.said)
    assert "On chat nothing is refused, so there is nothing to take away." in text
    assert "count in no rate: 16 of 16 in chat B with chat added." in text
    assert "No direction was taken from base (nothing)." in text
    assert "chat, noise: nothing to take away" in shown.figures[0]
    assert "chat B, noise: the &lt;width&gt; is 3" in shown.figures[1]
    assert "chat B, chat: no thought was finished" in shown.figures[1]
