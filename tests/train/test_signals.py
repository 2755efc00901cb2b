# SPDX-License-Identifier: Apache-2.0
"""SIGTERM in every phase: saved once, exit code 75, and the run goes on to the same end."""

import os
import signal
import threading
import time

import pytest

from efficient_layers import train
from efficient_layers.data.pipeline import TrainIterator
from efficient_layers.train import run as run_module
from efficient_layers.train.checkpoint import Checkpointer
from efficient_layers.train.finish import Evaluator
from efficient_layers.train.loop import Loop
from tests.train.runs import assert_same_run, launch, tiny_config

OPTIONS = train.Options()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("straight")
    assert train.main(tiny_config(), str(folder), OPTIONS) == 0
    return folder


def _terminate_at(monkeypatch, owner, name, call):
    """SIGTERM to this process just before the `call`-th call of `owner.name`."""
    original, calls = getattr(owner, name), []

    def wrapper(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapper)
    return calls


PHASES = {
    "warm-up": (TrainIterator, "__next__", 1),
    "compile": (run_module, "lower_step", 1),
    "step": (Loop, "_advance", 7),
    "evaluation": (Evaluator, "validation", 1),
    "checkpoint": (Checkpointer, "save", 1),
}


QUICK = ("step", "checkpoint")


@pytest.mark.parametrize(
    "phase", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in PHASES]
)
def test_sigterm_saves_once_and_the_run_goes_on(phase, straight, tmp_path, monkeypatch):
    owner, name, call = PHASES[phase]
    with monkeypatch.context() as patch:
        calls = _terminate_at(patch, owner, name, call)
        assert train.main(tiny_config(), str(tmp_path), OPTIONS) == train.EXIT_PREEMPTED == 75
        assert len(calls) >= call
    with Checkpointer(tmp_path / "checkpoints", read_only=True) as checkpointer:
        saved = checkpointer.latest_step()
    assert saved is not None
    assert saved < 24
    assert not (tmp_path / "report.json").exists()
    assert train.main(tiny_config(), str(tmp_path), OPTIONS) == 0
    assert (tmp_path / "report.json").exists()
    assert_same_run(straight, tmp_path, 24)


def test_max_runtime_takes_the_same_path(straight, tmp_path):
    options = train.Options(max_runtime_s=0.001)
    assert train.main(tiny_config(), str(tmp_path), options) == train.EXIT_PREEMPTED
    assert train.main(tiny_config(), str(tmp_path), OPTIONS) == 0
    assert_same_run(straight, tmp_path, 24)


def test_sigterm_to_the_whole_group_reaches_workers_too(tmp_path):
    """What a scheduler does: trainer and data workers get it; the workers must not die of it."""
    process = launch(tmp_path, "--config.data.workers=1", wait=False)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()
    deadline = time.monotonic() + 180
    while (
        not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_bytes()
    ):
        assert process.poll() is None, "".join(lines)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=120) == train.EXIT_PREEMPTED, "".join(lines)
    reader.join(timeout=10)
    process.stdout.close()
    assert "Traceback" not in "".join(lines)
    with Checkpointer(tmp_path / "checkpoints", read_only=True) as checkpointer:
        assert checkpointer.latest_step() is not None
