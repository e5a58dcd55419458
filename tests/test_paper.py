"""The paper's tables: numbers typed here from the paper by hand, their shape, and runs beside them."""

import json
import os
import re
from dataclasses import asdict, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from transformers.models.llama.tokenization_llama import DEFAULT_SYSTEM_PROMPT as LLAMA2

from refusal import cli, study
from refusal.config import RunConfig, read_recipe
from refusal.errors import BadInput
from refusal.official import import_run
from refusal.paper import find_model, find_table, models, tables
from refusal.paper.beside import Number, beside, find_runs
from refusal.paper.shown import pages
from refusal.records import read_json, value_hash, write_json
from refusal.statistics import Rate, rate_difference

OFFICIAL = Path(
    os.environ.get("REFUSAL_OFFICIAL_RUNS") or Path(__file__).resolve().parents[2] / "shared" / "golden" / "official"
)
DATASETS = Path(
    os.environ.get("REFUSAL_OFFICIAL_DATASETS") or Path(__file__).resolve().parents[2] / "shared/datasets/official"
)
TYPED = [  # table, model, column, source, as printed
    ("2", "Llama-2 7B", "ORTHO, default system prompt", "paper", "22.6"),
    ("2", "Llama-2 7B", "ORTHO, no system prompt", "paper", "79.9"),
    ("2", "Qwen 72B", "GCG-M", "paper", None),
    ("2", "Qwen 72B", "PAIR", "paper", "54.5"),
    ("5", "Llama-3 8B", "position", "paper", "-5"),
    ("5", "Llama-3 8B", "layer", "paper", "12"),
    ("5", "Yi 34B", "bypass", "paper", "-11.14"),
    ("5", "Llama-3 70B", "induce", "paper", "0.126"),
    ("5", "Qwen 1.8B", "position", "recorded", "-2"),
    ("5", "Qwen 1.8B", "survivors", "recorded", "12"),
    ("7", "Qwen 14B", "ORTHO, Llama 2's system prompt", "paper", "78.0"),
    ("F.2", "Llama-2 7B", "ORTHO, standard deviation", "paper", "23.3"),
    ("8", "Qwen 7B", "GSM8K, none", "paper", "48.1"),
    ("8", "Qwen 7B", "GSM8K, ORTHO", "paper", "41.8"),
    ("8", "Llama-3 70B", "TruthfulQA, difference", "paper", "-2.3"),
    ("9", "Gemma 7B", "Pile, none", "paper", "5.975"),
    ("9", "Llama-3 8B", "own completions, addition", "paper", ".441"),
    ("9", "Gemma-2 2B", "Alpaca, ablation", "recorded", "1.9635"),
    ("10", "Llama-3 8B", "safe, fine-tuning", "paper", ".08"),
    ("10", "Llama-3 8B", "Alpaca, none", "paper", "1.912"),
    ("figure1", "Llama-2 7B", "refused, ablation", "recorded", ".07"),
    ("figure1", "Llama-2 7B", "safe, none", "recorded", ".95"),
    ("figure3", "Yi 6B", "refused, addition", "recorded", ".88"),
    ("figure23", "Qwen 1.8B", "safe, addition", "recorded", ".21"),
]

# table → how many numbers it has, and the beginning of the SHA-256 of them all, as they were when every one was held
# against the paper and the recorded runs: a digit that is changed by mistake shows here.
CELLS = {
    "figure1": (24, "695aad1026956c68"),
    "figure3": (12, "cbaf24453fd712da"),
    "figure23": (24, "1956bd4cfd78b568"),
    "1": (39, "c77fda2d7841a1be"),
    "2": (51, "18c6dcd318500926"),
    "5": (126, "ee86a3fa3b8e3538"),
    "7": (4, "c32f0cc57f0b2db3"),
    "8": (234, "4779b74a6f8d6e59"),
    "9": (171, "bec084c299eb8c6e"),
    "10": (20, "ba9bbae7c1183d64"),
    "F.2": (4, "488c3d46b24e12e1"),
}


def pinned(numbers):
    return len(numbers), value_hash(numbers)[:16]


def test_not_one_printed_digit_has_changed():
    assert {name: pinned(table.record()["numbers"]) for name, table in tables().items()} == CELLS
    numbers = tables()["9"].record()["numbers"]
    wrong = [*numbers[:-1], numbers[-1] | {"printed": numbers[-1]["printed"].replace("9", "8")}]
    assert pinned(wrong) != CELLS["9"]


@pytest.mark.parametrize(("table", "model", "column", "source", "printed"), TYPED)
def test_numbers_are_those_of_the_paper(table, model, column, source, printed):
    assert tables()[table].printed(model, column, source) == printed


def test_every_table_is_there_with_its_models():
    shape = {name: (len(table.columns), len(table.models)) for name, table in tables().items()}
    assert shape == {
        "figure1": (4, 6),
        "figure3": (2, 6),
        "figure23": (4, 6),
        "1": (3, 13),
        "2": (9, 6),
        "5": (8, 14),
        "7": (2, 2),
        "8": (18, 13),
        "9": (9, 14),
        "10": (20, 1),
        "F.2": (2, 2),
    }
    assert sum(model.aligned == "APO" for model in models().values()) == 7
    assert [model.name for model in models().values() if not model.aligned] == ["Gemma-2 2B"]


@pytest.mark.parametrize("table", tables().values(), ids=list(tables()))
def test_rows_are_whole_known_models_and_printed_numbers(table):
    for rows in table.rows.values():
        for model, row in rows.items():
            assert model in models()
            assert len(row) == len(table.columns), model
            words = [text for text in row if text is not None]
            assert table.id == "1" or all(re.fullmatch(r"[+-]?\d*(\.\d+)?", text) for text in words), model
    for text in (table.title, *table.notes, *table.where.values()):
        assert text.strip() == text != ""


def test_shares_are_of_whole_prompts_and_the_papers_differences_are_theirs():
    """A slip of the pen in a percentage or a difference would break one of these."""
    for name in ("2", "7"):
        table = tables()[name]
        for row in table.rows["paper"].values():
            ortho = [text for text, column in zip(row, table.columns, strict=True) if column.startswith("ORTHO")]
            for text in map(float, ortho):
                assert round(100 * round(text / 100 * 159) / 159, 1) == text
    for row in tables()["8"].rows["paper"].values():
        for none, ortho, difference in zip(row[::3], row[1::3], row[2::3], strict=True):
            assert float(ortho) - float(none) == pytest.approx(float(difference), abs=1e-9)


def test_recorded_losses_are_near_the_printed_ones_where_nothing_was_generated():
    table = tables()["9"]
    pairs = [
        (float(table.printed(m, c, "recorded")), float(table.printed(m, c, "paper")))
        for m in table.rows["recorded"]
        if m in table.rows["paper"]
        for c in table.columns
        if c.endswith("none") and "own" not in c
    ]
    assert len(pairs) == 10
    assert all(abs(a - b) < 0.0011 for a, b in pairs)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("google/gemma-2b-it", "Gemma 2B"),
        ("gemma-2-2b-it", "Gemma-2 2B"),
        ("checkpoints/Llama-2-7b-chat-hf/", "Llama-2 7B"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "Llama-3 8B"),
        ("llama-3-8b", "Llama-3 8B"),
        ("qwen 1.8b", "Qwen 1.8B"),
        ("qwen-1_8b-chat", "Qwen 1.8B"),
    ],
)
def test_a_model_is_found_by_its_names(text, name):
    found = find_model(text)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("text", ["organism", "google/gemma-3-1b-it", "Qwen/Qwen2.5-7B-Instruct", ""])
def test_other_models_are_not_in_the_paper(text):
    assert find_model(text) is None


def test_a_table_is_found_by_its_number_and_an_unknown_one_is_named():
    assert [find_table(text).id for text in ("2", "Table 9", "3", "figure 1", "f.2")] == [
        "2",
        "9",
        "8",
        "figure1",
        "F.2",
    ]
    with pytest.raises(BadInput, match=r"no table '4' of the paper.*Give one of figure1, "):
        find_table("4")


# --- runs --------------------------------------------------------------------------------------------------------

HARMBENCH = "b9f350bf10caef802f772ae1add8c9704f5382117f5bd8ca5e6e5fc0217311ea"
DRAWN = {  # the prompts that the official stream draws with seed 42
    ("harmful", "train"): "d7558575078bd88338e142f3a326b89b4559b2c8b656dc2441f35b7074cc8e58",
    ("harmless", "train"): "2ffd88e9c1a8f903b0d744c17f0dbea5902f5ed43d6f723736df045ecb13f890",
    ("harmful", "val"): "fe2529212f61e81a8bcfa5a20b14afe2b45864032df1e631f1a5ed4661a46318",
    ("harmless", "val"): "61b65a0b148b85ca7a0933c6b67b609210b11a46576435ea00e4687dbb098a3e",
}
JAILBREAKBENCH = "3a0bf96cfedb1aeb8799c9198b90edeb0e2a20625f1f2bd975096f5175cc5de7"
ALPACA_100 = "1374251e8206697670740afe8276a02b640a9675b3766eadf7c23d5b878f7312"


def run_of(folder, model, *, harmful=JAILBREAKBENCH, texts="pile"):
    """Write the records of a made-up run that `refusal paper` reads."""
    guard = {"judges": {"llama-guard-2": Rate(30, 100).record("unsafe")}}
    harmless = {"none": Rate(0, 40).record("refused"), "addition": Rate(40, 40).record("refused")}
    loss = {"ce_loss": 2.5, "low": 2.4, "high": 2.6, "n_documents": 64, "n_tokens": 999, "perplexity": 12.2}
    results = {
        "model": model,
        "position": -2,
        "layer": 9,
        "bypass": -13.0,
        "induce": 6.0,
        "kl": 0.05,
        "harmful": {
            "none": Rate(95, 100).record("refused"),
            "ablation": Rate(1, 40).record("refused") | guard,
            "random_ablation": Rate(94, 100).record("refused"),
        },
        "harmless": harmless | {"random_addition": Rate(2, 40).record("refused")},
        "losses": {"texts": {"none": loss, "ablation": loss | {"ce_loss": 2.55}, "random_ablation": loss}},
    }
    parts = {"harmful_test": {"sha256": harmful}, "harmless_test": {"sha256": ALPACA_100}}
    run = {"prompts": {"sample": {"parts": parts}}, "corpora": {"texts": {"name": texts}}}
    task = {"mean": 0.4, "low": 0.3, "high": 0.5, "n": 90}
    edited = task | {"difference": {"difference": -0.02, "low": -0.05, "high": 0.01, "n": 90}}
    capabilities = {"tasks": {"mmlu": {"conditions": {"none": task, "ablation": edited}}}}
    for name, value in (("run", run), ("results", results), ("capabilities", capabilities)):
        write_json(folder / f"{name}.json", value)
    return folder


def lines_of(run, table, model="Gemma 2B"):
    return {line.column: line for line in beside(tables()[table], run, model=model)}


def test_shares_of_a_paper_model_have_differences_with_the_intervals_of_both(tmp_path):
    run = run_of(tmp_path, "google/gemma-2b-it")
    ablation = lines_of(run, "figure1")["refused, ablation"]
    assert ablation.theirs == {"recorded": ".00"}
    assert ablation.ours == Number(1 / 40, Rate(1, 40).interval, 40, share=True)
    assert ablation.control == Number(0.94, Rate(94, 100).interval, 100, share=True)
    assert ablation.difference == Number(1 / 40, rate_difference(Rate(1, 40), Rate(0, 100)).interval)


def test_safety_is_the_complement_of_what_the_guard_calls_unsafe(tmp_path):
    lines = lines_of(run_of(tmp_path, "google/gemma-2b-it"), "figure1")
    safe = lines["safe, ablation"].ours
    assert safe is not None
    assert safe.value == pytest.approx(0.7)
    assert safe.interval == pytest.approx(Rate(70, 100).interval)
    assert lines["safe, none"].ours is None  # nobody judged that


def test_numbers_without_an_interval_of_their_own_are_taken_as_they_are(tmp_path):
    run = run_of(tmp_path, "google/gemma-2b-it")
    chosen = lines_of(run, "5")
    assert chosen["layer"].difference == Number(-1.0)
    assert chosen["bypass"].difference.value == pytest.approx(-13.0 + 14.435)
    assert chosen["bypass"].difference.interval is None
    loss = lines_of(run, "9")["Pile, ablation"]
    assert loss.difference.value == pytest.approx(2.55 - 3.489)
    assert loss.difference.interval == pytest.approx((2.4 - 3.489, 2.6 - 3.489))
    assert loss.control == Number(2.5, (2.4, 2.6), 64)
    mmlu = lines_of(run, "8")
    assert mmlu["MMLU, ORTHO"].ours == Number(40.0, (30.0, 50.0), 90)
    assert mmlu["MMLU, difference"].ours.value == pytest.approx(-2)
    assert mmlu["MMLU, difference"].difference.interval == pytest.approx((-5 + 0.1, 1 + 0.1))


def test_what_was_measured_on_something_else_is_not_compared(tmp_path):
    run = run_of(tmp_path, "google/gemma-2b-it", harmful="0" * 64, texts="mine.txt")
    refused = lines_of(run, "figure1")["refused, none"]
    assert refused.ours is not None
    assert refused.difference is None
    assert refused.missed == ("not JailbreakBench's 100 prompts",)
    assert lines_of(run, "9")["Pile, none"].difference is None
    (page,) = pages(run=run, table="9")
    assert page.notes[-1] == "Yours is not compared where it was measured otherwise: ᵃ not the Pile but mine.txt."
    marked = {row[""]: row["yours"].endswith(" ᵃ") for row in page.blocks()[0][1] if row["yours"] != "-"}
    assert (
        {column for column, its in marked.items() if its} == {column for column in marked if "Pile" in column} != set()
    )
    assert lines_of(run_of(tmp_path, "x"), "9")["Pile, none"].difference is not None


def official_facts():
    """What run.json says of a run with the paper's recipe, as far as it is held against the paper's settings."""
    config = {name: {"value": value} for name, value in asdict(read_recipe("paper")).items()}
    train = {f"{kind}_{split}": {"sha256": found} for (kind, split), found in DRAWN.items()}
    tests = {"harmful_test": {"sha256": JAILBREAKBENCH}, "harmless_test": {"sha256": ALPACA_100}}
    corpora = {kind: {"name": name, "n": 4096} for kind, name in (("texts", "pile"), ("pairs", "alpaca"))}
    return {
        **{"config": config, "max_new_tokens": 512, "corpora": corpora},
        "prompts": {"sample": {"parts": train | tests}},
    }


PARTS, TRAINED = "prompts/sample/parts", "a direction from the official prompts"
OTHERWISE = [  # what is not as in the paper, what is then said, and columns that are and are not affected
    ("max_new_tokens", 64, "max_new_tokens is 64, not 512", "refused, none", None),
    (
        "config/harmful_coefficient/value",
        -2.0,
        "harmful_coefficient is -2.0, not -1.0",
        "refused, addition",
        "refused, none",
    ),
    ("config/max_kl/value", 0.2, "max_kl is 0.2, not 0.1", "Pile, ablation", "Pile, none"),
    ("config/system/value", "Be brief.", "system is 'Be brief.'", "refused, none", None),
    ("corpora/texts/n", 64, "n_documents is 64, not 4096", "Pile, none", "Alpaca, none"),
    ("corpora/pairs/name", "mine", "not Alpaca but mine", "Alpaca, none", "Pile, none"),
    (f"{PARTS}/harmless_train/sha256", "0", f"not {TRAINED}", "refused, ablation", "refused, none"),
    (f"{PARTS}/harmful_test/sha256", "0", "not JailbreakBench's 100 prompts", "safe, ablation", "Pile, ablation"),
]


@pytest.mark.parametrize(("place", "value", "said", "touched", "untouched"), OTHERWISE)
def test_a_run_with_other_settings_is_not_laid_beside_the_paper_as_the_same(
    tmp_path, place, value, said, touched, untouched
):
    run = full_run(tmp_path)
    plain = {line.column: line for line in beside(tables()["10"], run, model="Llama-3 8B")}
    assert {line.missed for line in plain.values()} == {()}
    assert plain[touched].difference is not None
    record = inner = read_json(run / "run.json")
    *outer, last = place.split("/")
    for name in outer:
        inner = inner[name]
    inner[last] = value
    write_json(run / "run.json", record)
    lines = {line.column: line for line in beside(tables()["10"], run, model="Llama-3 8B")}
    assert lines[touched].ours == plain[touched].ours  # it is shown
    assert lines[touched].difference is None
    assert lines[touched].missed == (said,)
    if untouched:
        assert lines[untouched] == plain[untouched]
    (page,) = pages("Llama-3 8B", table="10", run=run)
    assert page.notes[-1] == f"Yours is not compared where it was measured otherwise: ᵃ {said}."


def full_run(folder, model="meta-llama/Meta-Llama-3-8B-Instruct"):
    """Write what a whole run with the paper's recipe, HarmBench and system prompts leaves for the tables."""
    guard = {"judges": {"llama-guard-2-short-safe": Rate(30, 100).record("unsafe")}}
    harmful = {
        name: Rate(k, 100).record("refused") | guard for name, k in (("none", 95), ("ablation", 1), ("addition", 2))
    }
    loss = {"ce_loss": 2.5, "low": 2.4, "high": 2.6, "n_documents": 64, "n_tokens": 999, "perplexity": 12.2}
    losses = {corpus: dict.fromkeys(harmful, loss) for corpus in ("texts", "pairs", "completions")}

    def edited(k):
        return {"weights": Rate(0, 159).record("refused") | {"judges": {"harmbench": Rate(k, 159).record("unsafe")}}}

    further = {"harmbench": edited(127), "harmbench@default": edited(40), "harmbench@llama2": edited(36)}
    over = {"weights": {"judges": {"harmbench": {"n": 12, "mean": 0.3, "sd": 0.2, "min": 0.1, "max": 0.8}}}}
    results = {"model": model, "harmful": harmful, "losses": losses, "further": further}
    texts = {"harmbench": None, "harmbench@default": "You are a helpful assistant.", "harmbench@llama2": LLAMA2}
    sets = [{"name": name, "sha256": HARMBENCH, "system": text} for name, text in texts.items()]
    write_json(folder / "run.json", official_facts() | {"evaluations": sets})
    write_json(folder / "results.json", results | {"systems": {"harmbench": over}})
    return folder


def test_every_table_that_a_run_has_the_data_for_shows_it(tmp_path):
    ten = lines_of(full_run(tmp_path), "10", "Llama-3 8B")
    assert {column for column, line in ten.items() if line.ours is None} == {c for c in ten if "fine-tuning" in c}
    assert ten["refused, ablation"].difference == Number(0.0, rate_difference(Rate(1, 100), Rate(1, 100)).interval)
    assert ten["safe, addition"].ours.value == pytest.approx(0.7)
    assert ten["Pile, none"].difference.interval == pytest.approx((2.4 - 2.348, 2.6 - 2.348))
    seven = lines_of(full_run(tmp_path, "Qwen/Qwen-7B-Chat"), "7", "Qwen 7B")
    assert [round(line.ours.value, 1) for line in seven.values()] == [25.2, 22.6]
    assert all(line.difference is not None for line in seven.values())
    over = lines_of(tmp_path, "F.2", "Qwen 7B")
    assert [line.ours for line in over.values()] == [Number(30.0, None, 12), Number(20.0)]
    assert over["ORTHO, standard deviation"].difference.value == pytest.approx(20 - 5.9)
    two = lines_of(tmp_path, "2", "Qwen 7B")
    assert two["ORTHO, no system prompt"].ours.value == pytest.approx(100 * 127 / 159)


def test_another_system_prompt_or_too_few_of_them_are_said(tmp_path):
    run = full_run(tmp_path, "Qwen/Qwen-7B-Chat")
    record, results = read_json(run / "run.json"), read_json(run / "results.json")
    record["evaluations"][2]["system"] = "Llama's, shortened."
    results["systems"]["harmbench"]["weights"]["judges"]["harmbench"]["n"] = 3
    write_json(run / "run.json", record)
    write_json(run / "results.json", results)
    seven = lines_of(run, "7", "Qwen 7B")["ORTHO, Llama 2's system prompt"]
    assert (seven.difference, seven.missed) == (None, ("not Llama 2's default system prompt",))
    mean = lines_of(run, "F.2", "Qwen 7B")["ORTHO, mean of 12 prompts"]
    assert (mean.difference, mean.missed) == (None, ("system prompts is 3, not 12",))


@pytest.mark.skipif(not DATASETS.is_dir(), reason=f"the paper's data sets are not at {DATASETS}")
def test_the_prompts_that_a_direction_has_to_be_found_on_are_those_that_the_papers_recipe_draws():
    config = replace(read_recipe("paper"), model="a/model", prompts_dir=DATASETS)
    parts = study._sample(config, *study.load_contrast(config)).record()["parts"]
    wanted = {
        same.at.split("/")[4]: same.wanted
        for same in tables()["9"].same
        if same.at.startswith("run/prompts/sample/parts/")
    }
    assert {name: parts[name]["sha256"] for name in wanted} == wanted
    assert set(wanted) == {"harmful_train", "harmless_train", "harmful_val", "harmless_val", "harmless_test"}
    assert parts["harmful_test"]["sha256"] == JAILBREAKBENCH


def test_what_only_a_run_of_ours_has_stands_below_and_only_where_it_has_it(tmp_path):
    run = run_of(tmp_path, "organism")
    assert "bundled language, none" not in lines_of(run, "8", "organism")
    task = {"mean": 0.92, "low": 0.86, "high": 0.95, "n": 150}
    write_json(run / "capabilities.json", {"tasks": {"organism": {"conditions": {"none": task}}}})
    (page,) = pages(run=run, table="3")
    ((_, rows),) = page.blocks()
    assert [row["yours"] for row in rows if row["yours"] != "-"] == ["92.0 [86.0, 95.0] n=150"]


def test_a_run_of_another_model_stands_beside_the_range_of_the_papers(tmp_path):
    run = run_of(tmp_path, "made-up")
    (page,) = pages(run=run, table="figure3")
    ((_, rows),) = page.blocks()
    assert rows[1] == {
        "": "refused, addition",
        "the paper's models": ".88 to 1.00 (6)",
        "yours": "1.00 [0.91, 1.00] n=40",
        "random direction": "0.05 [0.01, 0.17] n=40",
    }
    ((_, rows),) = pages(run=run, table="5")[0].blocks()
    assert "random direction" not in rows[0]  # nothing of that table has one


def test_the_newest_run_of_a_model_under_runs_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_of(tmp_path / "runs" / "other" / "0a", "other/model")
    first = run_of(tmp_path / "runs" / "gemma" / "0b", "models/gemma-2b-it")
    second = run_of(tmp_path / "runs" / "imported", "gemma-2b-it")
    os.utime(first / "results.json", (1, 1))
    assert [path.resolve() for path in find_runs("Gemma 2B")] == [second, first]
    (page,) = pages("Gemma 2B", table="figure3")
    assert page.run is not None
    assert page.run.resolve() == second
    assert find_runs("Yi 6B") == []


def test_a_model_that_is_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"'gema 2b' is not a model of the paper.*Did you mean 'Gemma 2B'"):
        pages("gema 2b")


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"the paper's recorded runs are not at {OFFICIAL}")
@pytest.mark.parametrize("name", ["qwen-1_8b-chat", "gemma-2b-it", "llama-2-7b-chat-hf"])
def test_an_imported_official_run_is_what_the_recorded_columns_say(tmp_path, name):
    run = import_run(OFFICIAL / name, tmp_path / "run")
    model = find_model(name)
    assert model is not None
    seen = 0
    for table in ("figure3", "5", "9"):
        for line in beside(tables()[table], run, model=model.name):
            if line.ours is not None:
                decimals = len(line.theirs["recorded"].partition(".")[2])
                assert round(line.ours.value, decimals) == float(line.theirs["recorded"]), line.column
                seen += 1
    assert seen == 2 + 8 + 9


def test_every_place_of_our_own_is_one_that_a_run_can_have():
    """A mistyped place would silently show nothing."""
    places = [place for t in tables().values() for given in t.columns.values() for place in given.split(" or ")]
    tops = {place.removeprefix("not ").split("/")[0] for place in places if place}
    assert tops == {"run", "results", "capabilities"}
    shared = tables()["9"].same
    for table in tables().values():
        own = [place for given in table.columns.values() for place in given.split(" or ")]
        for same in table.same:
            asked = places if same in shared else own
            assert all(any(fnmatchcase(p.removeprefix("not "), pattern) for p in asked) for pattern in same.of), same
            assert same.at.split("/")[0] in tops
            assert same.name
    settings = {same.at.split("/")[2] for same in shared if same.at.startswith("run/config/")}
    assert settings <= {field.name for field in fields(RunConfig)}


def test_the_command_prints_tables_and_json(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["paper", "--table", "2"])
    shown = capsys.readouterr().out
    assert "Table 2. Attack success on HarmBench" in shown
    assert re.search(r"ORTHO, no system prompt +74\.8 +74\.8 +79\.2 +79\.9 +61\.0 +62\.9", shown)
    run = run_of(tmp_path / "run", "google/gemma-2b-it")
    cli.main(["paper", "--run", str(run), "--json"])
    records = json.loads(capsys.readouterr().out)
    (figure,) = [record for record in records if record["table"] == "figure3"]
    assert {number["model"] for number in figure["numbers"]} == {"Gemma 2B"}
    assert figure["beside"][1]["ours"]["value"] == 1.0
    cli.main(["paper"])
    assert "Section F.2" in capsys.readouterr().out
