# SPDX-License-Identifier: Apache-2.0
"""Small real runs: the survey's CNN, 1 % wide, on the bundled digits; seconds each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from efficient_layers.train.checkpoint import Checkpointer
from efficient_layers.train.defaults import default_config
from efficient_layers.train.loop import TIMINGS
from efficient_layers.train.metrics import read

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--config.model.width=0.05",
    "--config.data.batch_size=32",
    "--config.data.eval_batch_size=128",
    "--config.train.log_every=1 steps",
    "--config.train.eval_every=16 steps",
]


def tiny_config(**train_settings: object) -> ConfigDict:
    """1,221 training examples in batches of 32: 38 steps an epoch."""
    config = default_config()
    with config.unlocked():
        config.model.update({"name": "menghani_cnn", "width": 0.05, "dropout_rate": 0.1})
    config.data.batch_size = 32
    config.data.eval_batch_size = 128
    config.data.crop = "pad"
    config.data.padding = 1
    config.optimizer.learning_rate = 3e-3
    config.train.duration = "24 steps"
    config.train.log_every = "4 steps"
    config.train.eval_every = "12 steps"
    config.train.ema_decay = 0.9
    config.train.checkpoint.permanent_every = "10 steps"
    config.report.batches = (1,)
    config.train.update(train_settings)
    return config


def launch(workdir: Path, *flags: str, wait: bool = True, env: dict[str, str] | None = None):
    """`python -m launch.train --config=tests/train/tiny_run.py ...` in a process of its own."""
    command = [sys.executable, "-m", "launch.train", "--config=tests/train/tiny_run.py"]
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    if not wait:
        return process
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def run(module: str, *flags: str) -> tuple[int, str]:
    """`python -m launch.MODULE ...`: its exit code, and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"launch.{module}", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def arrays(workdir: Path, step: int) -> tuple[dict[str, np.ndarray], dict]:
    """Every array of a checkpoint by its path, and what is stored beside them."""
    with Checkpointer(workdir / "checkpoints", read_only=True) as checkpointer:
        _, tree, extra = checkpointer.read(step)
    flat: dict[str, np.ndarray] = {}

    def walk(prefix: str, node: object) -> None:
        if isinstance(node, dict):
            for name, child in node.items():
                walk(f"{prefix}/{name}", child)
        else:
            flat[prefix] = np.asarray(node)

    walk("", tree)
    return flat, extra


def untimed_metrics(workdir: Path) -> list[dict]:
    """metrics.jsonl without times and rates."""
    lines = read(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def assert_same_run(one: Path, other: Path, step: int) -> None:
    """Parameters, optimiser, EMA, guard, iterator and metrics are equal to the bit."""
    (left, left_extra), (right, right_extra) = arrays(one, step), arrays(other, step)
    assert left.keys() == right.keys()
    assert any("opt_state" in path for path in left)
    assert any("ema" in path for path in left)
    for path, value in left.items():
        assert value.dtype == right[path].dtype, path
        np.testing.assert_array_equal(value, right[path], err_msg=path)
    for name in ("iterator", "window", "window_steps"):
        assert json.dumps(left_extra[name]) == json.dumps(right_extra[name]), name
    assert untimed_metrics(one) == untimed_metrics(other)
