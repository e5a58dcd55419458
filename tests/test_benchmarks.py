"""The benchmarks run, small: their numbers are in the documentation, and mean nothing at this size."""

import json
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers.models.llama.modeling_llama

import forked
import refusal.layerwise
import refusal.sweep
import refusal.weights.checkpoint

IMPORTED = (transformers, refusal)  # what benchmarks import, which their forks then have already
FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., str]:
    """Run a benchmark as from the command line, but in this process and its forks, with torch; what it prints."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(subprocess, "run", forked.run)

    def called(name: str, *words: str) -> str:
        monkeypatch.setattr("sys.argv", [str(FOLDER / f"{name}.py"), *words])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return called


def test_the_export_benchmark_prints_its_table_and_cleans_up(run, tmp_path):
    size = ["--gigabytes", "0.001", "--width", "128", "--vocabulary", "50", "--rounds", "1"]
    out = run("export", str(tmp_path), *size)
    assert "| in memory |" in out
    edited = 1 + 3 * 2  # the embedding, and two matrices in each of three layers
    assert f"differ between the two: 0 of 30, at most by 0.0e+00; that differ from the source: {edited}." in out
    assert not list(tmp_path.iterdir())


# What each is told to be tiny, and the benchmark's own names of what has to be in its record.
TINY = {
    "sweep": (
        "--shapes tiny --vocabularies 500 --prompts 4 --layers 2 --candidates 1",
        ("full ×", "fast ×", "of peak"),
    ),
    "extract": ("--shape tiny --vocabulary 500 --prompts 8", ("seconds", "peak MiB")),
    "generate": ("--shape tiny --vocabulary 500 --prompts 10 --tokens 12 --typical 10", ("ratio", "lengths")),
    "losses": ("--shapes tiny --vocabularies 500 --documents 8 --kinds pairs texts", ("×", "of peak")),
    "scaling": ("--shape tiny --vocabulary 1200 --layers 2 --prompts 8 --candidates 1", ("exponent",)),
}


@pytest.fixture
def tiny(run, tmp_path) -> Callable[[str], list[dict]]:
    """Run a benchmark at its smallest, and return what it records."""

    def called(name: str) -> list[dict]:
        record = tmp_path / "record.jsonl"
        assert "| --- |" in run(name, *TINY[name][0].split(), "--rounds", "1", "--json", str(record))
        rows = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
        assert all(row["benchmark"] == name and set(TINY[name][1]) <= set(row) for row in rows)
        return rows

    return called


def test_the_sweep_benchmark_gets_the_plain_procedures_scores_and_one_choice(tiny):
    (row,) = tiny("sweep")
    assert max(row["bypass off"], row["induce off"], row["kl off"]) < 1e-5  # float32
    assert row["same choice"].startswith("yes")
    assert row["timed layers"] == [2, 7]
    assert row["pass induce"] == "3 of 10"  # five positions at two layers; neither is cut, int(0.8 · 10) being 8
    assert 0 <= row["padding"] < 1


def test_the_extraction_benchmark_says_why_a_peer_did_not_run(tiny):
    rows = {row["who"]: row for row in tiny("extract")}
    assert rows["refusal"]["seconds"] > 0
    assert rows["refusal"]["why"] == ""
    for peer in ("transformer-lens", "nnsight", "steering-vectors"):
        assert ("No module named" in rows[peer]["why"]) or rows[peer]["means off"] < 1e-5


def test_the_generation_benchmark_gets_the_same_tokens_from_both_ways(tiny):
    (row,) = tiny("generate")
    assert row["identical answers"] == "10 of 10"
    assert len(set(row["lengths"])) > 1  # some end early


def test_the_scaling_benchmark_fits_every_axis(tiny):
    rows = tiny("scaling")
    assert {(row["what"], row["against"]) for row in rows} == {
        (what, axis) for what in ("sweep", "means") for axis in ("layers", "prompts", "candidates", "vocabulary")
    }


def test_a_fitted_exponent_is_that_of_the_points(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import scaling

    k, off = scaling.power([1, 2, 4, 8], [3 * x**1.5 for x in (1, 2, 4, 8)])
    assert k == pytest.approx(1.5)
    assert off < 1e-12
    assert scaling.power([1, 2, 4], [1, 2, 5])[1] > 0.05


def test_the_losses_benchmark_gets_the_plain_ways_numbers(tiny):
    rows = tiny("losses")
    assert [row["kind"] for row in rows] == ["pairs", "texts"]
    assert all(row["off"] < 1e-5 * row["loss"] for row in rows)  # float32
    assert all(row["padding"] <= 0.05 for row in rows)


def test_the_layerwise_benchmark_gets_the_whole_models_scores_and_cleans_up(run, tmp_path):
    record, folder = tmp_path / "record.jsonl", tmp_path / "work"
    size = ["--gigabytes", "0.004", "--width", "128", "--vocabulary", "500", "--every", "3", "--activations", "0.05"]
    run("layerwise", str(folder), *size, "--json", str(record))
    row = json.loads(record.read_text(encoding="utf-8"))
    assert row["apart"] < 1e-5  # float32
    assert len(row["whole"]["scores"]) == 3 * 3  # of nine blocks, every third has a candidate
    assert row["streamed"]["kept"] > 0
    assert row["streamed"]["files"] > 0
    assert row["streamed"]["read sweep"] == pytest.approx(1, abs=0.02)  # each byte of the blocks once
    assert not list(folder.iterdir())
