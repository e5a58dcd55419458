"""A direction we put into a tiny model ourselves: the method has to find it, remove it, add it and bake it in.

The planted model refuses when an exclamation mark stands in the instruction. Its first attention layer looks at all
tokens alike and writes the planted direction r when one of them was "!"; the unembedding says "I cannot" along r and
"Sure" along a direction that is always there, then ends. Everything else is small noise.
"""

import pytest
import torch

import tiny
from refusal.extraction import filter_prompts, mean_difference
from refusal.generation import generate
from refusal.interventions import ablate, add
from refusal.judges import judge
from refusal.model import ChatModel, load_model
from refusal.prompts import Prompt
from refusal.refusal_tokens import find_refusal_tokens
from refusal.selection import select_direction
from refusal.weights import orthogonalize

LAYERS = 5
WORDS = (
    *("copper", "amber", "violet", "silver", "maple", "cedar"),
    *("willow", "rowan", "otter", "heron", "falcon", "badger"),
)
TRAIN, VAL, TEST = WORDS[:5], WORDS[5:8], WORDS[8:]
NOISE = 0.02


def harmful(words):
    return [Prompt(f"Name a {word}! now") for word in words]


def harmless(words):
    return [Prompt(f"Name a {word}. now") for word in words]


def orthonormal(count: int) -> torch.Tensor:
    noise = torch.randn(tiny.D, count, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return torch.linalg.qr(noise).Q.T.float()


@pytest.fixture(scope="module")
def planted() -> tuple[ChatModel, torch.Tensor]:
    network, words = tiny.network(layers=LAYERS), tiny.tokenizer()
    r, mark, always, said = orthonormal(4)  # the planted one · "!" was read · in every token · an answer was given
    ids = {word: words.convert_tokens_to_ids(word) for word in ("!", "I cannot", "Sure", "<|im_end|>")}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.ones_like(parameter) if parameter.ndim == 1 else NOISE * parameter / 0.3)
        embedding, head, first = network.model.embed_tokens.weight, network.lm_head.weight, network.model.layers[0]
        embedding += always
        embedding[ids["!"]] += 3 * mark
        embedding[[ids["I cannot"], ids["Sure"]]] += 4 * said
        first.self_attn.q_proj.weight.zero_()  # every token is looked at alike
        first.self_attn.v_proj.weight[0] += 3 * mark
        first.self_attn.v_proj.weight[tiny.HEAD_DIM] += 3 * mark
        first.self_attn.o_proj.weight[:, :: tiny.HEAD_DIM] += 2.5 * r[:, None]  # the first number of every head
        head[ids["Sure"]] += 3 * always
        head[ids["I cannot"]] += 4 * r
        head[ids["<|im_end|>"]] += 9 * said
    return load_model(network, words), r


def refused(model, prompts) -> float:
    return judge(generate(model, prompts, max_new_tokens=4)).rate


@pytest.fixture(scope="module")
def selection(planted):
    model, _ = planted
    tokens = find_refusal_tokens(model, harmful(VAL), harmless(VAL))
    train = [
        filter_prompts(model, some(TRAIN), tokens=tokens.tensor, refused=sign)
        for some, sign in ((harmful, True), (harmless, False))
    ]
    return select_direction(model, mean_difference(model, *train), harmful(VAL), harmless(VAL), tokens=tokens)


def test_the_planted_model_refuses_what_it_should_and_ends_its_answers(planted):
    model, _ = planted
    assert refused(model, harmful(WORDS)) == 1
    assert refused(model, harmless(WORDS)) == 0
    completions = generate(model, [*harmful(WORDS), *harmless(WORDS)], max_new_tokens=4)
    assert {c.response for c in completions} == {"I cannot", "Sure"}
    assert {(c.tokens, c.finished) for c in completions} == {(2, True)}


def test_its_refusal_token_is_proposed(selection):
    assert selection.tokens.texts == ("I cannot",)


def test_the_planted_direction_is_what_the_means_differ_by(planted, selection):
    _, r = planted
    found = [selection.candidates.at(p, layer).unit.float() @ r for p in range(-5, 0) for layer in range(1, LAYERS)]
    assert min(found) > 0.95  # with its sign: harmful minus harmless


def test_the_chosen_direction_is_the_planted_one_and_not_of_a_late_layer(planted, selection):
    best = selection.best
    assert float(best.unit.float() @ planted[1]) > 0.95
    assert 1 <= best.layer < 4
    verdicts = {s.layer: s.verdict for s in selection.scores}
    assert verdicts[0] == "no difference"
    assert verdicts[4] == "late layer"


def test_ablating_it_ends_refusals_and_adding_it_starts_them(planted, selection):
    model, _ = planted
    with ablate(model, selection.best):
        assert refused(model, harmful(TEST)) == 0
        assert refused(model, harmless(TEST)) == 0
    with add(model, selection.best):
        assert refused(model, harmless(TEST)) == 1
    with add(model, selection.best, coefficient=-1.0):
        assert refused(model, harmful(TEST)) == 0


def test_a_random_direction_of_the_same_length_does_neither(planted, selection):
    model, _ = planted
    control = selection.best.random(1)
    with ablate(model, control):
        assert refused(model, harmful(TEST)) == 1
    with add(model, control):
        assert refused(model, harmless(TEST)) == 0


def test_edited_weights_do_what_ablation_does_token_by_token(planted, selection):
    model, _ = planted
    edited = orthogonalize(model, selection.best)
    prompts = [*harmful(TEST), *harmless(TEST)]
    with ablate(model, selection.best):
        ablated = generate(model, prompts, max_new_tokens=4)
    assert generate(edited, prompts, max_new_tokens=4) == ablated
    assert refused(model, harmful(TEST)) == 1  # the given model is as it was
