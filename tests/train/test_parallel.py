# SPDX-License-Identifier: Apache-2.0
"""Eight virtual devices: DP = FSDP = one device, and checkpoints move between them.

With SGD (Adam divides by second moments near zero) and for 8 steps: gradients agree to 4e-6, but
after about ten steps that rounding flips a maximum of a pooling layer, and the losses part by 1e-3.
"""

import numpy as np
import pytest

from efficient_layers.train.metrics import read
from tests.train.runs import launch

EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
STEPS = 8
FLAGS = [
    f"--config.train.duration={STEPS} steps",
    "--config.optimizer.name=sgd_nesterov",
    "--config.optimizer.learning_rate=0.005",
]


def _losses(workdir) -> np.ndarray:
    return np.array(
        [line["train/loss"] for line in read(workdir / "metrics.jsonl") if "train/loss" in line]
    )


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    code, output = launch(folder, *FLAGS)
    assert code == 0, output
    return folder


@pytest.mark.slow  # three runs of launch.train; test_mesh holds a step to its numbers on every mesh
@pytest.mark.parametrize("mesh", ["data:8", "data:2,fsdp:4"])
def test_dp_and_fsdp_give_the_losses_of_one_device(mesh, one_device, tmp_path):
    flags = [*FLAGS, f"--config.mesh={mesh}", "--config.fsdp_min_size=0"]
    code, output = launch(tmp_path, *flags, env=EIGHT)
    assert code == 0, output
    expected, got = _losses(one_device), _losses(tmp_path)
    assert len(expected) == STEPS
    np.testing.assert_allclose(got, expected, atol=1e-5)
    code, output = launch(tmp_path, *FLAGS)  # trained on eight, read on one
    assert code == 0, output
    assert f"finished at step {STEPS}" in output


def test_a_batch_that_does_not_divide_is_refused_before_work(tmp_path):
    code, output = launch(tmp_path / "run", "--config.data.batch_size=20", env=EIGHT)
    assert code == 1
    assert "batch size 20 does not divide over 8 devices" in output
    assert not (tmp_path / "run").exists()
