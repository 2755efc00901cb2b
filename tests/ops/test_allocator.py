# SPDX-License-Identifier: Apache-2.0
"""Keeping freed memory: a process of its own, because the setting is for good."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np, jax, jax.numpy as jnp
from efficient_layers.ops import keep_freed_memory

def faults(f):
    for _ in range(4):  # until small blocks that outlive a call have found their places
        f()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    f()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
program = jax.jit(lambda x: jnp.sort(jnp.outer(x, x), axis=1).sum(0))  # 100 MiB of temporaries
x = jnp.ones(5120)
blocks = [lambda: np.ones(1 << 24), lambda: jax.block_until_ready(program(x))]
few = [faults(f) < 5000 for f in blocks]
print(kept, *few)
"""


@pytest.mark.slow
@pytest.mark.fast
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
def test_a_block_freed_is_a_block_kept():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    kept, *few_faults = done.stdout.split()
    assert few_faults == [kept, kept]
