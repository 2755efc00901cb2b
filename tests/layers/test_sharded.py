# SPDX-License-Identifier: Apache-2.0
"""Every layer computes on 8 devices (data 4 x tensor 2) what it computes on one."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_every_layer_sharded_equals_unsharded() -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.layers.sharded"],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "BAD" not in done.stdout
    assert done.stdout.count("ok ") > 5
