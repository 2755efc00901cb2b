# SPDX-License-Identifier: Apache-2.0
"""Keeping freed memory: a process of its own, because the setting is for good."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource
from efficient_layers.ops import keep_freed_memory
kept = keep_freed_memory()
import numpy as np
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, faults() < 1000)
"""


@pytest.mark.fast
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
def test_a_block_freed_is_a_block_kept():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    kept, few_faults = done.stdout.split()
    assert few_faults == kept
