# SPDX-License-Identifier: Apache-2.0
"""Train N == train k, kill -9, resume, N - k: to the bit, mid-epoch, with data workers."""

import os
import signal
import time
from pathlib import Path

import pytest

from efficient_layers.train.metrics import read
from tests.train.runs import assert_same_run, launch


def _steps_logged(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return max((line["step"] for line in read(path)), default=0) if path.exists() else 0


def _kill_after(workdir: Path, step: int, *flags: str) -> None:
    """Runs until `step` is logged, then kill -9 for the trainer and nobody else."""
    process = launch(workdir, *flags, wait=False)
    deadline = time.monotonic() + 180
    while _steps_logged(workdir) < step:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "the run did not get to the step"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_kill_9_and_resume_is_bit_exact(tmp_path, workers, no_compilation_cache):
    """60 steps are 1.6 epochs; the kill comes at 33 or later, past the checkpoint of step 30.

    The first run compiles its programs; the killed one and its successor read them.
    """
    data = f"--config.data.workers={workers}"
    cache = f"--compilation_cache_dir={tmp_path / 'cache'}"
    code, output = launch(tmp_path / "straight", data, cache)
    assert code == 0, output
    _kill_after(tmp_path / "killed", 33, data, cache)
    assert _steps_logged(tmp_path / "killed") < 60, "the run was over before the kill"
    code, output = launch(tmp_path / "killed", data, cache)
    assert code == 0, output
    assert "resumed from step" in output
    assert_same_run(tmp_path / "straight", tmp_path / "killed", 60)
