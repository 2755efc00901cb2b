# SPDX-License-Identifier: Apache-2.0
"""`python -m launch.benchmark` as a user runs it."""

import csv
import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast


def launch(*flags):
    command = [sys.executable, "-m", "launch.benchmark", "--threads=1", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_writes_table_csv_and_markdown(tmp_path):
    done = launch(
        "--suite=layers",
        "--filter=pointwise_1x1_1280_7x7x320/inference/1",
        "--against=none",
        "--calls=2",
        f"--out={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    assert "ours_ms" in done.stdout
    (path,) = tmp_path.glob("layers-against-none-*.csv")
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["workload"] == "pointwise_1x1_1280_7x7x320"
    assert float(row["ours_ms"]) > 0
    assert float(row["plain_ms"]) > 0
    assert len(list(tmp_path.glob("*.md"))) == 1


def test_a_filter_without_match_is_an_error():
    done = launch("--suite=models", "--filter=nothing*", "--against=none", "--out=")
    assert done.returncode == 1
    assert "matches no case" in done.stderr
