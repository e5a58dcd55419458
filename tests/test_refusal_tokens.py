"""Which tokens open a refusal, and why these."""

import pytest
import torch

import tiny
from refusal import engine, refusal_tokens
from refusal.errors import BadSetting, TooFewPrompts
from refusal.model import load_model
from refusal.refusal_tokens import find_refusal_tokens


def proposing(monkeypatch, on_harmful, on_harmless):
    """Make the model's mean first-token distributions what a test says: {token: probability}."""

    def distribution(model, prompts, _logits):
        shares = torch.zeros(model.network.config.vocab_size, dtype=torch.float64)
        for token, share in (on_harmful if prompts == ["harmful"] else on_harmless).items():
            shares[token] = share
        return shares

    monkeypatch.setattr(refusal_tokens, "_first_token_distribution", distribution)


def find(model, **given):
    return find_refusal_tokens(model, ["harmful"], ["harmless"], **given)


def test_what_the_user_gives_is_used():
    found = find(tiny.shared(), given=[40, 32])
    assert found.ids == (40, 32)
    assert found.texts == ("I", "A")
    assert found.reason == "given by the user"
    assert found.tensor.tolist() == [40, 32]


def test_a_token_given_twice_counts_once():
    assert find(tiny.shared(), given=[40, 40]).ids == (40,)


@pytest.mark.parametrize("token", [-1, 10_000])
def test_a_token_outside_the_vocabulary_is_refused(token):
    with pytest.raises(BadSetting, match=f"token {token} is outside the vocabulary: ids run from 0 to"):
        find(tiny.shared(), given=[40, token])


def test_the_papers_tokens_are_known_by_family_and_vocabulary():
    llama3 = load_model(tiny.network(vocabulary=128256), tiny.tokenizer())
    found = find(llama3)
    assert (found.ids, found.texts) == ((40,), ("I",))
    assert "Llama 3" in found.reason


def test_a_vocabulary_of_the_right_size_with_another_token_there_is_not_the_papers(monkeypatch):
    llama2 = load_model(tiny.network(vocabulary=32000), tiny.tokenizer())  # its token 306 is no "I"
    proposing(monkeypatch, {7: 0.9}, {})
    assert find(llama2).ids == (7,)


def test_tokens_common_on_harmful_and_rare_on_harmless_are_proposed_commonest_first(monkeypatch):
    on_harmful = {40: 0.3, 32: 0.5, 7: 0.0199, 8: 0.02, 9: 0.1, 10: 0.08}
    on_harmless = {40: 0.03, 32: 0.0, 9: 0.02, 10: 0.5}  # 9 is five times as likely only
    proposing(monkeypatch, on_harmful, on_harmless)
    found = find(tiny.shared())
    assert found.ids == (32, 40, 8)
    assert found.reason.startswith("proposed: ")
    assert "'A' 50.0% against 0.0%, 'I' 30.0% against 3.0%" in found.reason
    assert found.record()["ids"] == (32, 40, 8)


def test_nothing_to_propose_shows_the_commonest_and_the_setting(monkeypatch):
    proposing(monkeypatch, {40: 0.5, 32: 0.4}, {40: 0.5, 32: 0.4})
    with pytest.raises(TooFewPrompts, match=r"commonest on harmful: 'I' 50%, 'A' 40%.*--refusal-tokens"):
        find(tiny.shared())


def test_the_distribution_is_the_mean_of_the_softmaxes():
    model = tiny.shared()
    with torch.no_grad():
        each = [
            model.network(torch.tensor([model.encode(text)])).logits[0, -1].double().softmax(-1)
            for text in tiny.PROMPTS
        ]
    found = refusal_tokens._first_token_distribution(model, tiny.PROMPTS, engine.last_logits)
    assert torch.allclose(found, torch.stack(each).mean(0), atol=1e-6)
    assert found.sum().item() == pytest.approx(1)


def test_the_bundled_models_openings_are_found(bundled, harmful, harmless):
    found = find_refusal_tokens(bundled, harmful.val, harmless.val)
    assert set(found.texts) >= {"I", "As"}  # "I cannot", "I'm sorry", "As an AI"
    assert len(found.ids) <= 4
