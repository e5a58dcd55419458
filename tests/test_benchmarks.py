"""The benchmarks run, small: their numbers are in the documentation, and mean nothing at this size."""

import subprocess
import sys
from pathlib import Path

EXPORT = Path(__file__).resolve().parents[1] / "benchmarks" / "export.py"


def test_the_export_benchmark_prints_its_table_and_cleans_up(tmp_path):
    size = ["--gigabytes", "0.001", "--width", "128", "--vocabulary", "50", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, str(EXPORT), str(tmp_path), *size], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "| in memory |" in done.stdout
    edited = 1 + 3 * 2  # the embedding, and two matrices in each of three layers
    assert f"differ between the two: 0 of 30, at most by 0.0e+00; that differ from the source: {edited}." in done.stdout
    assert not list(tmp_path.iterdir())
