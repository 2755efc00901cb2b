# SPDX-License-Identifier: Apache-2.0
"""`python -m launch.report` as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from efficient_layers.report import write_report

pytestmark = pytest.mark.fast
ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch.report", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _write(folder: Path, accuracy: float, macs: int) -> None:
    empty = {"latency": {}, "memory": {}, "training": {}, "environment": {}, "history": []}
    report = {"schema": 1, "model": "net", "quality": {"test_accuracy": accuracy}}
    write_report(folder, report | {"cost": {"macs": macs}} | empty)


def test_page_and_table_of_two_runs(tmp_path):
    _write(tmp_path / "b0", 0.9, 100)
    _write(tmp_path / "b1", 0.95, 200)
    done = _run(f"--workdirs={tmp_path}/b0,{tmp_path}/b1", f"--out={tmp_path}/compare.html")
    assert done.returncode == 0, done.stderr
    assert "2 runs compared" in (tmp_path / "compare.html").read_text()
    assert "hypervolume" in done.stdout
    assert "b1: 95.00" in done.stdout


def test_missing_report_is_an_error_with_the_command(tmp_path):
    done = _run(f"--workdirs={tmp_path}/none", f"--out={tmp_path}/compare.html")
    assert done.returncode == 1
    assert "python -m launch.train" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_flags_are_errors_with_the_choices(tmp_path):
    assert "--workdirs" in _run().stderr
    axis = _run(f"--workdirs={tmp_path}", "--x=speed")
    assert axis.returncode != 0
    assert "weight_bytes" in axis.stderr
