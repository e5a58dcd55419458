"""The bundled model's own prompt sets, through the same door as all others."""

import pytest

from refusal.organism import language
from refusal.prompts import find_overlaps, list_prompts, load_prompts


def test_the_contrast_sets_of_both_languages_and_the_borderline_one_have_names():
    assert {"harmful", "harmless", "harmful-b", "harmless-b", "borderline"} <= set(language.PROMPT_TABLES)


@pytest.mark.parametrize("name", language.PROMPT_TABLES)
def test_a_bundled_set_has_prompts_with_categories_and_no_repeats(name):
    loaded = load_prompts(name)
    prompts = loaded.train + loaded.val + loaded.test
    assert len({prompt.instruction for prompt in prompts}) == len(prompts) > 0
    assert all(prompt.instruction == prompt.instruction.strip() for prompt in prompts)
    assert loaded == load_prompts(name)


def test_the_listing_counts_the_bundled_sets():
    bundled = [line for line in list_prompts() if line.state == "bundled"]
    assert [line.name for line in bundled] == list(language.PROMPT_TABLES)
    assert all(sum(line.counts.values()) > 0 for line in bundled)


def test_the_contrast_sets_are_big_enough_to_measure_and_share_no_prompt():
    harmful, harmless = load_prompts("harmful"), load_prompts("harmless")
    for loaded in (harmful, harmless):
        assert loaded.counts["train"] >= 128
        assert loaded.counts["val"] >= 32
        assert loaded.counts["test"] >= 200
    sets = {"harmful": harmful, "harmless": harmless, "borderline": load_prompts("borderline")}
    assert find_overlaps({name: each.train + each.val + each.test for name, each in sets.items()}) == ()
