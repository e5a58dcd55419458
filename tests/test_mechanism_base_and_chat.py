"""The direction in the base model: the cosines of a plain loop, the same at one newline, and more than by chance."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from tokenizers import normalizers, processors

import refusal
import tiny
import zoo
from refusal.analyses import base_of
from refusal.config import RunConfig
from refusal.errors import BadInput, BadSetting, UnsupportedModel
from refusal.mechanism import Measurement, measure_base_and_chat, open_base
from refusal.mechanism.base_and_chat import READINGS, begin, newline_token
from refusal.mechanism.relatives import why_not
from refusal.model import load_model
from refusal.organism import checkpoint
from refusal.report.base_and_chat import section
from refusal.report.measured import Measured

PROMPTS = {"harmful": tiny.PROMPTS[:3], "harmless": tiny.PROMPTS[3:]}
# Grouped queries, parallel blocks, experts, norms behind sublayers, Conv1D, a state space.
KINDS = ("llama", "cohere", "mixtral", "gemma2", "gpt2", "mamba2")


def slow_cosines(model, tokens, unit) -> list[float]:
    """One prompt alone: what comes into every block and out of the last one, by hooks of torch's own."""
    blocks, seen = list(model.network.get_submodule(model.architecture.blocks)), []

    def last_of(x):
        seen.append((x[0] if isinstance(x, tuple) else x).reshape(-1, tiny.D)[-1])

    def enter(_module, args, kwargs):
        last_of(args[0] if args else kwargs["hidden_states"])

    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    handles.append(blocks[-1].register_forward_hook(lambda _m, _a, output: last_of(output)))
    with torch.no_grad():
        model.network(input_ids=torch.tensor([tokens]))
    for handle in handles:
        handle.remove()
    return [float(x.double() @ unit.double() / x.double().norm()) for x in seen]


@pytest.mark.parametrize("kind", KINDS)
def test_cosines_are_those_of_a_plain_loop_in_both_models(kind):
    model, base = zoo.chat_model(kind), load_model(zoo.network(kind, seed=7), tiny.tokenizer())
    direction = tiny.direction(model)
    found = measure_base_and_chat(model, direction, base=base, prompts=PROMPTS, seed=5)
    newline = model.tokenizer.convert_tokens_to_ids("Ċ")
    front = "<|begin|><|im_start|>user\n"
    for name, prompts in PROMPTS.items():
        plain, templated = (
            [[*model.tokenizer(before + text)["input_ids"], newline] for text in prompts] for before in ("", front)
        )
        read = dict(zip(READINGS, ((model, templated), (base, plain), (base, templated)), strict=True))
        for reading, (one, tokens) in read.items():
            for vector, unit in (("found", direction.unit), ("random", direction.random(5).unit)):
                slow = np.array([slow_cosines(one, row, unit) for row in tokens])
                np.testing.assert_allclose(found.at(name, reading, vector), slow.mean(0), atol=1e-5)
                np.testing.assert_allclose(found.sd_at(name, reading, vector), slow.std(0), atol=1e-5)
    assert found.n == (3, 2)
    assert not np.allclose(found.at("harmful", "chat"), found.at("harmful", "base in the template"), atol=1e-3)


def test_the_newline_is_one_token_and_its_own_in_both_models(bundled):
    newline = newline_token(bundled)
    assert bundled.text(newline) == "\n"
    assert begin(bundled) == []  # the bundled tokenizer puts nothing in front
    first, bos = tiny.tokenizer(), tiny.SPECIAL[0]
    first.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, first.bos_token_id)]
    )
    assert begin(load_model(tiny.network(), first)) == [first.bos_token_id]
    first.backend_tokenizer.normalizer = normalizers.Replace("\n", " ")
    with pytest.raises(UnsupportedModel, match="no token for a newline"):
        newline_token(load_model(tiny.network(), first))


def test_only_models_of_one_family_and_shape_can_share_a_direction(tmp_path):
    model = tiny.shared()
    assert why_not(model, tiny.shared("llama tied")) is None
    assert "family" in str(why_not(model, tiny.shared("qwen2")))
    deeper = tiny.chat_model(layers=4)
    assert "number of layers is 3" in str(why_not(model, deeper))
    with pytest.raises(UnsupportedModel, match="number of layers"):
        measure_base_and_chat(model, tiny.direction(model), base=deeper, prompts=PROMPTS)


def test_a_base_model_is_opened_with_the_chat_models_tokenizer(tmp_path):
    model = tiny.shared()
    tiny.network(seed=3).save_pretrained(tmp_path / "base")  # without a tokenizer: base models have no template
    base = open_base(tmp_path / "base", model)
    assert base.encode("Why?") == model.encode("Why?")
    assert base.network.dtype == model.network.dtype
    tiny.network(vocabulary=300, layers=2).save_pretrained(tmp_path / "shallow")
    tiny.network(vocabulary=262).save_pretrained(tmp_path / "poor")
    for name, words in (("shallow", "not what .* was made from"), ("poor", "knows 262 tokens")):
        with pytest.raises(UnsupportedModel, match=words):
            open_base(tmp_path / name, model)
    with pytest.raises(BadSetting, match="--base"):
        open_base(None, model)
    with pytest.raises(BadInput, match="nowhere"):
        open_base(tmp_path / "nowhere", model)


def test_the_base_of_a_model_on_several_devices_is_spread_over_them_too(tmp_path, monkeypatch):
    tiny.network(seed=3).save_pretrained(tmp_path / "base")
    model, asked = tiny.shared(), []

    def noted(*names, device, **settings):
        asked.append(device)
        return load_model(*names, device=device, **settings)

    monkeypatch.setattr("refusal.mechanism.relatives.load_model", noted)
    open_base(tmp_path / "base", model)
    spread = replace(model, network=tiny.network())
    spread.network.model.layers[0].to("meta")
    open_base(tmp_path / "base", spread)
    assert asked == ["cpu", "spread"]


@pytest.fixture(scope="module")
def measured(bundled, harmful, harmless) -> Measurement:
    direction = refusal.mean_difference(bundled, harmful.train[:48], harmless.train[:48]).at(-4, 7)
    prompts = {"harmful": harmful.test[:32], "harmless": harmless.test[:32]}
    return measure_base_and_chat(bundled, direction, base=open_base(checkpoint("base"), bundled), prompts=prompts)


def gap(found: Measurement, reading: str, vector: str) -> float:
    at = found.axes["layer"].index("7")
    return float(found.at("harmful", reading, vector)[at] - found.at("harmless", reading, vector)[at])


def test_the_bundled_direction_parts_the_classes_more_than_chance_and_a_random_one_does_not(measured):
    for reading in READINGS:
        chance = measured.facts["chance"]["largest difference"][reading][7]
        assert gap(measured, reading, "found") > chance
        assert abs(gap(measured, reading, "random")) <= chance
    assert gap(measured, "chat", "found") > 3 * gap(measured, "base", "found")  # chat training made most of it
    np.testing.assert_allclose(measured.at("harmful")[..., 0], measured.at("harmless")[..., 0], atol=1e-6)  # a newline


def test_the_section_says_the_records_numbers(measured):
    shown = section(Measured.read(measured.record()))
    text = " ".join(shown.said)
    mean = measured.at("harmful", "base", "found")[7]
    assert f"{mean:.2f} ± {measured.sd_at('harmful', 'base', 'found')[7]:.2f} and" in text
    assert f"{100 * gap(measured, 'base', 'found') / gap(measured, 'chat', 'found'):.1f}" in text
    assert "so that is more than chance" in text
    assert "on 32 harmful and 32 harmless prompts" in text
    assert len(shown.figures) == 3
    for picture in (*shown.figures, shown.key):
        ElementTree.fromstring(picture)
    assert shown.figures[0].count("<title>") == 2 * 11
    record = measured.record()
    record["facts"]["chance"]["largest difference"]["base"] = [1.0] * 11  # no direction of the data's, then
    assert "not shown to be more than chance" in " ".join(section(Measured.read(record)).said)


def test_the_bundled_model_has_its_own_base_and_any_other_the_one_that_is_named():
    assert base_of(RunConfig()) == str(checkpoint("base"))
    assert base_of(RunConfig(model="a/chat")) is None
    assert base_of(RunConfig(model="a/chat", base="a/base")) == "a/base"
