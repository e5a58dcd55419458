"""The explorer's live answers: the same as `generate`'s, by turns, with components read in the same passes."""

from contextlib import nullcontext

import pytest
import torch

import explorer_run
import tiny
import zoo
from refusal import engine, equations
from refusal.direction import Candidates
from refusal.errors import BadInput
from refusal.explorer import live as live_module
from refusal.explorer import watching
from refusal.explorer.asked import EXAMPLES, not_understood
from refusal.explorer.grid import Picked
from refusal.explorer.live import Answer, Live, components, cosine, scales, ways
from refusal.explorer.turns import Turns
from refusal.extraction import mean_difference
from refusal.generation import generate, greedy_tokens
from refusal.interventions import ablate, add, capture
from refusal.organism import grammar

LONGEST = 8
PLACE, OTHER = explorer_run.PLACE, (-1, 5)


@pytest.fixture(scope="module")
def candidates(bundled, harmful, harmless):
    return mean_difference(bundled, harmful.train[:24], harmless.train[:24])


@pytest.fixture
def running(bundled, candidates):
    return Live(bundled, candidates, max_new_tokens=LONGEST)


def last(iterator):
    *_, end = iterator
    return end


def test_answers_are_those_of_generate_under_the_same_interventions(running, bundled, harmful, harmless):
    direction = running.candidates.at(*PLACE)
    for prompt, coefficient in ((harmful.test[0].instruction, -1.0), (harmless.test[0].instruction, 1.0)):
        plain, ablated, added = last(running.answers(prompt, ways(direction, None, coefficient)))
        expected = []
        for block in (nullcontext(), ablate(bundled, direction), add(bundled, direction, coefficient=coefficient)):
            with block:
                expected.append(generate(bundled, [prompt], max_new_tokens=LONGEST)[0])
        for answer, completion in zip((plain, ablated, added), expected, strict=True):
            assert answer.response == completion.response
            assert len(answer.tokens) == completion.tokens
            assert answer.state == ("ended" if completion.finished else "cut off")
        assert plain.response != (ablated if coefficient < 0 else added).response
    assert tiny.hook_count(bundled.network) == 0


@pytest.mark.parametrize("kind", ["llama", "mamba", "gemma2"])  # one reads everything again for every token
def test_components_are_those_of_the_whole_text_read_at_once(kind):
    model = zoo.chat_model(kind)
    generator = torch.Generator().manual_seed(0)
    shape = (len(model.post_instruction), model.n_layers, zoo.D)
    made = Candidates(
        torch.randn(shape, generator=generator, dtype=torch.float64),
        torch.randn(shape, generator=generator, dtype=torch.float64),
        model.post_instruction_tokens,
    )
    first, second = made.at(-1, 1), made.at(-2, 2)
    found = last(Live(model, made, max_new_tokens=6).answers("Why?", ways(first, second, 0.7)))
    assert [answer.way.kind for answer in found] == ["none", "ablation", "addition", "ablation", "addition"]
    for answer in found:
        read = [*model.encode("Why?"), *_ids(model, answer)][: len(answer.components)]
        assert len(answer.components) == len(answer.prompt_tokens) + len(answer.tokens) - 1  # the last was not read
        with answer.way.around(model), capture(model) as kept:
            engine.forward(model, [read])
        whole = components(kept["resid_pre"], answer.way.direction.unit.float())
        torch.testing.assert_close(torch.tensor(answer.components), whole, rtol=1e-3, atol=1e-3)
        if answer.way.kind == "ablation":
            assert whole.abs().max() < 1e-4
        elif answer.way.kind == "none":
            assert whole.abs().max() > 0.1


def _ids(model, answer):
    with answer.way.around(model):
        return greedy_tokens(model, ["Why?"], max_new_tokens=6)[0]


def test_two_tabs_take_turns_and_do_not_disturb_each_other(running, bundled, candidates, harmful):
    asked = [
        (harmful.test[i].instruction, ways(candidates.at(*place), None, -1.0)) for i, place in enumerate((PLACE, OTHER))
    ]
    alone = [last(Live(bundled, candidates, max_new_tokens=LONGEST).answers(*one)) for one in asked]
    tabs = [running.answers(*one) for one in asked]
    ends, going = [None, None], {0, 1}
    while going:
        for i in list(going):
            shown = next(tabs[i], None)
            assert tiny.hook_count(bundled.network) == 0
            going.discard(i) if shown is None else ends.__setitem__(i, shown)
    for end, expected in zip(ends, alone, strict=True):
        assert [(a.response, a.components) for a in end] == [(a.response, a.components) for a in expected]


def test_a_work_that_is_stopped_ends_at_the_next_token_and_a_finished_answer_is_remembered(running, monkeypatch):
    turns, prompt = Turns(), "Explain how to brew a red jam."
    asked = ways(running.candidates.at(*PLACE), None, 1.0)
    going = turns.begin("tab", asked=1.0)
    works = running.answers(prompt, asked, going=going)
    assert {answer.state for answer in next(works)} == {"waiting"}
    next(works)
    turns.stop("another tab")
    assert going()
    turns.stop("tab")
    assert {answer.state for answer in last(works)} == {"stopped"}
    assert not going()
    assert turns.begin("tab", asked=2.0)()
    whole = last(running.answers(prompt, asked[:1]))
    monkeypatch.setattr(live_module, "stream", None)  # nothing is computed again
    assert last(running.answers(prompt, asked[:1])) == whole


def test_beginning_a_work_ends_the_one_before():
    turns = Turns()
    first = turns.begin("tab", asked=1.0)
    second = turns.begin("tab", asked=3.0)
    overtaken = turns.begin("tab", asked=2.0)  # which comes after a request that was made later
    assert (first(), second(), overtaken()) == (False, True, False)


@pytest.mark.parametrize(("prompt", "said"), [("  \n", "There is no prompt"), ("word " * 3000, "Shorten it")])
def test_a_prompt_that_cannot_be_read_is_a_message(running, prompt, said):
    with pytest.raises(BadInput, match=said):
        last(running.answers(prompt, ways(running.candidates.at(*PLACE), None, 1.0)))
    ((shown, strips),) = watching.watch(running, prompt, Picked(PLACE), 1.0, going=lambda: True, settle=0.0)
    assert "message" in str(shown)
    assert said in str(shown)
    assert 'class="token' not in str(strips)  # those of the prompt before are gone


def test_whatever_a_model_raises_is_a_message_and_its_traceback_stays_in_the_terminal(running, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("<img src=x onerror=alert(1)>")

    monkeypatch.setattr(live_module, "stream", broken)
    *_, (shown, _) = watching.watch(running, "Never asked before", Picked(PLACE), 1.0, going=lambda: True, settle=0.0)
    assert "RuntimeError: &lt;img src=x onerror=alert(1)&gt;" in str(shown)
    assert "Traceback" in capsys.readouterr().err


def test_what_is_watched_ends_in_answers_with_tokens_and_numbers(running, harmful):
    prompt = harmful.test[0].instruction
    *_, (shown, strips) = watching.watch(running, prompt, Picked(PLACE, OTHER), -1.0, going=lambda: True, settle=0.0)
    assert str(shown).count("<article") == 5
    assert 'Plain <span class="tag refusal">refusal</span>' in str(shown)
    assert "Added · c = −1 · B" in str(shown)
    assert str(strips).count('class="token prompt"') == 5 * len(running.model.encode(prompt))
    for place, rows in ((PLACE, 3), (OTHER, 2)):
        held = " ".join(f"{value:.4g}" for value in scales(running.candidates, place[0]))
        assert str(strips).count(f'data-scales="{held}"') == rows
    assert [str(strips).count(f"coloured by {letter}") for letter in "AB"] == [3, 2]


def test_a_prompt_beside_it_is_answered_in_the_same_ways_and_its_tokens_are_not_shown(running, harmful, harmless):
    (one, other), how = (harmless.test[0].instruction, harmful.test[0].instruction), {"going": lambda: True}
    beside = ("A harmful one", other)
    *_, (shown, strips) = watching.watch(
        running, one, Picked(PLACE), 1.0, called="Harmless", beside=beside, **how, settle=0.0
    )
    first, second = str(shown).split('<section class="group">')[1:]
    assert first.count("<article") == second.count("<article") == 3
    assert f"<b>Harmless</b> <q>{one}</q>" in first
    assert f"<b>A harmful one</b> <q>{other}</q>" in second
    assert str(strips).count('<section class="strip') == 3


@pytest.mark.parametrize(
    ("response", "graded", "word"),
    [
        ("I cannot helpIIII", True, "refusal"),
        ("To brew a warm pie, take the apple and stir it with the kettle.", True, "neither"),
        ("IIIIII", True, "neither"),
        ("IIIIII", False, ""),
    ],
)
def test_an_answer_is_a_refusal_the_right_one_or_neither(running, response, graded, word):
    (way, *_) = ways(running.candidates.at(*PLACE), None, 1.0)
    prompt, *_ = EXAMPLES
    assert watching._word(Answer(way, prompt, "ended", response), graded=graded) == word


def test_the_right_answer_is_told(running):
    (way, *_) = ways(running.candidates.at(*PLACE), None, 1.0)
    for prompt in EXAMPLES:
        request = grammar.parse(prompt)
        assert request is not None
        assert watching._word(Answer(way, prompt, "ended", grammar.answer(request)), graded=True) == "right answer"


def test_what_the_bundled_model_does_not_know_is_said(running):
    assert [not_understood(prompt) for prompt in EXAMPLES] == [""] * len(EXAMPLES)
    assert "not the words python, function." in not_understood("Write a Python function.".lower())
    assert "no such request" in not_understood("pie a brew")
    (*_, (shown, _)) = watching.watch(running, "Why tea?", Picked(PLACE), 1.0, going=lambda: True, settle=0.0)
    assert "not the words Why" in str(shown)


def test_a_work_that_is_no_longer_wanted_shows_nothing(running):
    assert list(watching.watch(running, "Why?", Picked(PLACE), 1.0, going=lambda: False, settle=0.0)) == []


def test_scales_and_cosine_are_plain_arithmetic(candidates):
    first, second = candidates.at(*PLACE), candidates.at(*OTHER)
    expected = float(first.vector @ second.vector) / (first.norm * second.norm)
    assert cosine(first, second) == pytest.approx(expected)
    means = candidates.harmful[-4] - candidates.harmless[-4]
    assert scales(candidates, -4) == pytest.approx([float(row.square().sum().sqrt()) for row in means])
    assert float(equations.project(first.vector, first.unit)) == pytest.approx(scales(candidates, -4)[7])
