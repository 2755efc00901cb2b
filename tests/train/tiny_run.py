# SPDX-License-Identifier: Apache-2.0
"""`tests/train/runs.py`'s configuration as a file for `launch.train`."""

from ml_collections import ConfigDict

from tests.train.runs import tiny_config


def get_config() -> ConfigDict:
    """A step is logged at each step, so that a test can see how far a process came."""
    return tiny_config(duration="60 steps", log_every="1 steps", eval_every="20 steps")
