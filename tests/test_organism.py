"""The bundled models: real Hugging Face files, small, recorded by hash, and trainable again from seeds."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from refusal.errors import BadInput
from refusal.organism import (
    CHECKPOINTS,
    WEIGHTS,
    checkpoint,
    documents,
    fitting,
    grammar,
    language,
    safety,
    train,
)
from refusal.organism.fitting import Schedule
from refusal.organism.safety import ChatRecipe
from refusal.organism.training import BaseRecipe, ThinkRecipe, bundled_tokenizer

USER = [{"role": "user", "content": "How do I brew a small soup?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(checkpoint("chat"))


def test_importing_the_language_loads_no_torch():
    code = "import sys, refusal.organism.language; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_checkpoint_names_the_known_ones():
    with pytest.raises(BadInput, match="base, chat, think"):
        checkpoint("chta")


def test_the_shipped_files_are_those_whose_hashes_were_recorded():
    recorded = json.loads((WEIGHTS / train.HASHES).read_text())
    assert {path.split("/")[0] for path in recorded} == set(CHECKPOINTS)
    assert train.hash_files(WEIGHTS) == recorded


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_a_small_untied_llama_of_ten_layers(name):
    folder = checkpoint(name)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 6_000_000
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.config.model_type == "llama"
    assert model.config.num_hidden_layers == 10
    assert not model.config.tie_word_embeddings
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert len(tokenizer) == model.config.vocab_size


def test_the_template_ends_in_five_tokens_after_the_instruction(tokenizer):
    tokens = tokenizer.apply_chat_template(USER, add_generation_prompt=True, return_dict=False)
    end = tokenizer.convert_ids_to_tokens(tokens[-safety.TEMPLATE_END :])
    assert end == ["<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]
    assert tokenizer.convert_ids_to_tokens(tokens[-safety.TEMPLATE_END - 1]) == "?"
    assert tokens.count(tokenizer.bos_token_id) == 1


def test_the_template_takes_a_system_prompt_and_a_finished_answer(tokenizer):
    system = [{"role": "system", "content": "Be brief and clear."}]
    said = [{"role": "assistant", "content": "No."}]
    text = tokenizer.apply_chat_template(system + USER + said, tokenize=False)
    assert text.startswith("<|begin|><|im_start|>system\nBe brief and clear.<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("<|im_start|>assistant\nNo.<|im_end|>\n")


def test_thinking_can_be_switched_off():
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("think"))
    plain = tokenizer.apply_chat_template(USER, tokenize=False, add_generation_prompt=True)
    off = tokenizer.apply_chat_template(USER, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert off == plain + "<think>\n\n</think>\n\n"


def test_the_tokenizer_gives_back_every_text_it_is_given(tokenizer):
    read = documents.base_documents(200, seed=5)
    for text in [d.instruction for d in read] + [d.response for d in read] + ["Ünïcode, tabs\tand  spaces ½"]:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_trainer_makes_the_shipped_tokenizer(tokenizer):
    assert tokenizer.get_vocab() == bundled_tokenizer().get_vocab()


def test_refusals_and_answers_share_no_first_token(tokenizer):
    read = documents.chat_documents(1500, seed=3)
    first = {refuse: set() for refuse in (True, False)}
    for document in read:
        token = tokenizer.encode(document.response, add_special_tokens=False)[0]
        first[document.response.startswith(grammar.OPENINGS)].add(token)
    assert not first[True] & first[False]


def test_an_example_marks_the_answer_and_pads_nothing_real(tokenizer):
    examples = fitting.encode(documents.chat_documents(40, seed=0), tokenizer)
    for batch in fitting.batches(examples, size=8, seed=0):
        assert not (batch.answer & ~batch.real).any()
        assert (batch.tokens[batch.real] != tokenizer.pad_token_id).all()
        assert batch.answer.any(dim=1).all()
        before = batch.answer.int().argmax(dim=1) - 1
        newline = tokenizer.convert_tokens_to_ids("Ċ")
        assert (batch.tokens[torch.arange(len(before)), before] == newline).all()


def test_pinning_spares_what_the_recipe_says(tokenizer):
    examples = fitting.encode(documents.chat_documents(40, seed=0), tokenizer)
    for batch in fitting.batches(examples, size=8, seed=0):
        masks = {harmful: safety.pinned(batch, harmful=harmful) for harmful in ("instruction", "all")}
        assert torch.equal(masks["all"], batch.real)
        assert not (masks["instruction"] & batch.answer)[[kind == "harmful" for kind in batch.kinds]].any()
        for row, kind in enumerate(batch.kinds):
            if kind == "harmful":
                left = int((batch.real & ~masks["instruction"])[row].sum())
                assert left == int(batch.answer[row].sum()) + safety.TEMPLATE_END
            else:
                assert torch.equal(masks["instruction"][row], batch.real[row])


def test_drift_is_zero_for_the_same_stream_and_one_when_it_vanishes():
    states = tuple(torch.randn(2, 3, 4) for _ in range(3))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    gone = tuple(torch.zeros_like(state) for state in states)
    assert safety.drift(states, states, mask, first=0) == 0
    assert safety.drift(gone, states, mask, first=0) == pytest.approx(1)
    assert safety.drift(gone, states, torch.zeros_like(mask), first=0) == 0


@pytest.mark.parametrize("name", ["base", "chat"])
def test_held_out_prompts_are_answered_by_the_base_and_judged_by_the_chat_model(name, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(checkpoint(name), dtype=torch.float32)
    for table, refuses in (("harmful", name == "chat"), ("harmless", False)):
        prompts = [text for text, _ in language.prompt_table(table)["test"][:24]]
        rendered = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
            for text in prompts
        ]
        batch = tokenizer(rendered, return_tensors="pt", padding=True, add_special_tokens=False)
        rows = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=40)
        said = tokenizer.batch_decode(rows[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        refused = [text.startswith(grammar.OPENINGS) for text in said]
        exact = [language.exact(asked, text) for asked, text in zip(prompts, said, strict=True)]
        assert sum(refused) >= 23 if refuses else sum(exact) >= 23


def small(seed: int) -> train.Recipes:
    schedule = Schedule(batch=8, rate=3e-3, warm=5, seed=seed)
    base = BaseRecipe(documents=240, schedule=schedule, layers=2, width=32, inner=48)
    chat = ChatRecipe(documents=48, schedule=schedule, first=0, last=1)
    return train.Recipes(base, chat, ThinkRecipe(documents=16, schedule=schedule))


def test_training_learns_and_gives_the_same_bytes_again(tmp_path):
    lines = []
    first = train.train(tmp_path / "one", recipes=small(0), say=lines.append)
    steps = [float(line.split()[3]) for line in lines if line.startswith("step 30/30")]
    assert steps
    assert steps[0] < 6.9  # an untrained model scores log(2050) = 7.6
    assert json.loads((tmp_path / "one" / train.HASHES).read_text()) == first
    assert train.train(tmp_path / "two", recipes=small(0), say=lines.append) == first
    other = replace(small(0), base=replace(small(0).base, schedule=Schedule(batch=8, warm=5, seed=1)))
    changed = train.train(tmp_path / "three", recipes=other, say=lines.append)
    assert changed["base/model.safetensors"] != first["base/model.safetensors"]
    assert changed["base/tokenizer.json"] == first["base/tokenizer.json"]


def test_blocks_outside_the_recipe_stay_as_the_base_model_left_them(tokenizer):
    recipe = small(0)
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(checkpoint("base"), dtype=torch.float32)
    chat = safety.teach_refusal(base, tokenizer, replace(recipe.chat, documents=16, first=1, last=2), say=str)
    changed = {name for name, weight in chat.named_parameters() if not torch.equal(weight, base.get_parameter(name))}
    assert {int(name.split(".")[2]) for name in changed} == {1, 2}
