"""Loading, chat templates, and where the instruction ends: in token space, never by tokenising the suffix alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel, PreTrainedTokenizerFast

import tiny
from refusal import engine
from refusal.errors import BadInput, UnsupportedModel
from refusal.model import PROBES, load_model

LLAMA2 = "{{ bos_token }}[INST] {{ messages[-1]['content'] }} [/INST] "


def llama2_tokenizer() -> PreTrainedTokenizerFast:
    """Like Llama 2's: every text gets a space in front, spaces are ▁, `▁[` is a token, BOS is added on encoding."""
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *map(chr, range(33, 127))]
    vocabulary += ["▁[", "IN", "INS", "INST", "!▁["]
    merges = [("▁", "["), ("I", "N"), ("IN", "S"), ("INS", "T"), ("!", "▁[")]
    inner = Tokenizer(
        models.BPE({t: i for i, t in enumerate(vocabulary)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = LLAMA2
    return fast


@pytest.fixture(scope="module")
def llama2():
    words = llama2_tokenizer()
    return load_model(tiny.network(vocabulary=len(words)), words)


def with_template(template: str | None):
    return load_model(tiny.network(), tiny.tokenizer(template))


def test_chatml_has_five_tokens_behind_the_instruction():
    model = tiny.shared()
    assert model.post_instruction_tokens == tiny.POST_INSTRUCTION
    assert model.n_layers == tiny.LAYERS


@given(st.text(min_size=1, max_size=30))
def test_whatever_the_instruction_the_prompt_ends_in_the_template(text):
    model = tiny.shared()
    tokens = model.encode(text)
    assert tuple(tokens[-5:]) == model.post_instruction
    assert tokens.count(model.tokenizer.bos_token_id) == 1


def test_llama2s_suffix_alone_has_one_token_more_than_inside_a_prompt(llama2):
    alone = llama2.tokenizer.encode(" [/INST] ", add_special_tokens=False)
    assert [llama2.tokenizer.convert_ids_to_tokens(t) for t in alone] == ["▁", "▁[", "/", "INST", "]", "▁"]
    inside = llama2.tokenizer.convert_ids_to_tokens(list(llama2.post_instruction))
    assert inside == ["▁[", "/", "INST", "]", "▁"]
    # The sixth from the end, which the official run read, is the instruction's own last token.
    assert len({llama2.encode(probe)[-6] for probe in PROBES}) == len({probe[-1] for probe in PROBES})


def test_no_double_beginning_of_sequence(llama2):
    assert llama2.tokenizer.encode("x").count(1) == 1  # the tokenizer adds one itself…
    assert llama2.encode("Why?").count(1) == 1  # …and the template's stays the only one


def test_an_instruction_that_melts_into_the_template_is_an_error(llama2):
    with pytest.raises(UnsupportedModel, match=r"merges the end of this instruction.*'Go!'"):
        llama2.encode("Go!")


def test_a_missing_pad_token_is_chosen_and_recorded(llama2):
    assert llama2.pad_token == llama2.tokenizer.eos_token_id
    assert "masked" in llama2.choices["pad token"]
    assert tiny.shared().choices == {}


def test_the_system_prompt_comes_before_the_instruction():
    plain, model = tiny.shared(), load_model(tiny.network(), tiny.tokenizer(), system="Be kind.")
    assert "system\nBe kind.<|im_end|>" in model.tokenizer.decode(model.encode("Why?"))
    assert "system" not in plain.tokenizer.decode(plain.encode("Why?"))
    assert model.post_instruction == plain.post_instruction


def test_an_empty_system_prompt_is_a_system_prompt():
    model = load_model(tiny.network(), tiny.tokenizer(), system="")
    assert "<|im_start|>system\n<|im_end|>" in model.tokenizer.decode(model.encode("Why?"))


def test_template_arguments_pass_through_and_can_lengthen_the_end():
    template = tiny.CHATML + "{% if enable_thinking is false %}<think>\n\n</think>{% endif %}"
    plain = with_template(template)
    model = load_model(tiny.network(), tiny.tokenizer(template), template_arguments={"enable_thinking": False})
    assert plain.post_instruction_tokens == tiny.POST_INSTRUCTION
    assert "".join(model.post_instruction_tokens) == "".join(tiny.POST_INSTRUCTION) + "<think>\n\n</think>"


@pytest.mark.parametrize(
    "template",
    [
        "{{ bos_token }}Hello<|im_end|>\n<|im_start|>assistant\n",
        "{{ bos_token }}{{ messages[0]['content'] | length }}<|im_end|>\n",
        "{{ bos_token }}{{ messages[0]['content'][:4] }}<|im_end|>\n",
        "{{ bos_token }}{{ messages[0]['content'] | upper }}<|im_end|>\n",
    ],
)
def test_a_template_that_hides_the_users_text_is_refused(template):
    with pytest.raises(UnsupportedModel, match=r"hides the user's text: '.*Check the chat template"):
        with_template(template)


def test_a_tokenizer_that_cannot_spell_the_users_text_is_refused():
    words = tiny.tokenizer()
    short = Tokenizer(models.WordLevel({"?": 0, "<|im_end|>": 1}, unk_token="?"))
    poor = PreTrainedTokenizerFast(tokenizer_object=short, eos_token="<|im_end|>")
    poor.chat_template = words.chat_template
    with pytest.raises(UnsupportedModel, match="hides the user's text"):
        load_model(tiny.network(), poor)


def test_no_chat_template_is_refused_with_a_remedy():
    with pytest.raises(UnsupportedModel, match=r"has no chat template.*set tokenizer.chat_template"):
        with_template(None)


def test_a_template_with_nothing_behind_the_instruction_is_refused():
    with pytest.raises(UnsupportedModel, match="puts no token behind the instruction"):
        with_template("{{ bos_token }}{{ messages[-1]['content'] }}")


@pytest.mark.parametrize("name", ["no/such-model", "/no/such/folder", "./no such folder", "no-such-model"])
def test_a_name_that_is_neither_folder_nor_hub_id_names_the_remedy(name):
    with pytest.raises(BadInput, match=r"could not be loaded.*Give a folder.*Hub id \(check the spelling") as caught:
        load_model(name)
    assert f"'{name}'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(BadInput, match="is a folder without a loadable model"):
        load_model(tmp_path)


@pytest.mark.parametrize("damage", ["no weights", "cut weights", "no tokenizer", "config is no JSON", "another width"])
def test_a_damaged_model_folder_is_one_sentence(tmp_path, damage):
    tiny.network().save_pretrained(tmp_path)
    if damage != "no tokenizer":
        tiny.tokenizer().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    if damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "config is no JSON":
        (tmp_path / "config.json").write_text("{")
    elif damage == "another width":
        config = tmp_path / "config.json"
        config.write_text(config.read_text().replace(f'"intermediate_size": {tiny.INNER}', '"intermediate_size": 50'))
    with pytest.raises(BadInput, match="is a folder without a loadable model") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_with_a_tensor_missing_is_refused_not_filled_with_noise(tmp_path):
    network = tiny.network()
    tensors = network.state_dict()
    del tensors["model.layers.1.mlp.up_proj.weight"]
    network.save_pretrained(tmp_path, state_dict=tensors)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"lacks 1 of the model's tensors, such as model.layers.1.mlp.up_proj.weight"):
        load_model(tmp_path)


def test_a_saved_folder_loads_and_says_what_it_chose(tmp_path):
    original = tiny.shared("qwen2")
    original.network.save_pretrained(tmp_path)
    original.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, device="cpu")
    assert loaded.name == str(tmp_path)
    assert set(loaded.choices) == {"dtype"}
    tokens = [original.encode(prompt) for prompt in tiny.PROMPTS]
    assert torch.equal(engine.last_logits(loaded, tokens), engine.last_logits(original, tokens))


def test_the_bundled_model_is_the_default(bundled):
    assert bundled.name == "organism"
    assert bundled.network.dtype == torch.float32
    assert len(bundled.post_instruction) >= 4
    assert set(bundled.choices) == {"dtype", "device"}


def test_a_loaded_network_stays_reachable_and_unwrapped():
    network, words = tiny.network(), tiny.tokenizer()
    model = load_model(network, words)
    assert model.network is network
    assert model.tokenizer is words
    assert not network.training


def test_a_loaded_network_without_a_tokenizer_is_refused():
    with pytest.raises(BadInput, match="without its tokenizer"):
        load_model(tiny.network())


@pytest.mark.parametrize("dtype", ["float31", "int8", "nn"])
def test_a_dtype_that_is_none_is_refused(dtype):
    with pytest.raises(BadInput, match=f"'{dtype}' is not a floating point dtype"):
        load_model(dtype=dtype)


def test_a_dtype_asked_for_is_used():
    assert load_model(dtype="bfloat16", device="cpu").network.dtype == torch.bfloat16


def test_a_device_that_is_none_is_refused():
    with pytest.raises(BadInput, match="no device 'gpu0'"):
        load_model(device="gpu0")


def test_an_uncovered_architecture_is_refused_on_loading():
    network = OpenAIGPTLMHeadModel(OpenAIGPTConfig(n_embd=8, n_layer=1, n_head=2, vocab_size=300))
    with pytest.raises(UnsupportedModel, match="'openai-gpt' is not covered"):
        load_model(network, tiny.tokenizer())


def test_an_unmatched_parameter_is_refused_on_loading():
    network = tiny.network()
    network.model.layers[1].self_attn.o_proj.register_parameter("extra", torch.nn.Parameter(torch.zeros(2)))
    with pytest.raises(UnsupportedModel, match=r"'model.layers.1.self_attn.o_proj.extra'"):
        load_model(network, tiny.tokenizer())
