# SPDX-License-Identifier: Apache-2.0
"""The machine's speed at its best, measured here and now: the denominator of MFU.

MFU = model FLOPs per step / (seconds x peak). The peak is that of a large matmul in the same dtype
on the same device, not a datasheet's. FLOPs = 2 x MACs.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from efficient_layers.measure.latency import sample

# A matmul is large enough when it takes this long; the cap is for accelerators.
_LONG_ENOUGH_S = 0.02
_LARGEST = 8192


def training_flops(macs: int, batch: int = 1) -> int:
    """FLOPs of a training step, by the usual convention: 3 x 2 x the forward MACs x batch.

    The backward pass is taken as twice the forward (a gradient for the input and one for the
    weights); recomputation (remat), the optimiser and elementwise work do not count as model FLOPs.
    """
    return 3 * 2 * macs * batch


def mfu(
    flops_per_step: float, seconds: float, dtype: Any = "float32", *, devices: int = 1
) -> float:
    """Model FLOPs utilisation, 0 to 1: `flops_per_step / (seconds x devices x matmul_peak(dtype))`.

    Source: Chowdhery et al., PaLM (arXiv 2204.02311), Appendix B.
    """
    if not seconds > 0:
        raise ValueError(f"mfu expects seconds > 0 per step. Got {seconds}.")
    return flops_per_step / (seconds * devices * matmul_peak(dtype))


def matmul_peak(dtype: Any = "float32") -> float:
    """FLOP/s (operations/s for integers) of the fastest of a few large matmuls, one device.

    Square, sized to run for some hundredths of a second; measured once a process. int8 accumulates
    in int32.
    """
    return _peak(jnp.dtype(dtype).name, jax.default_backend())


@functools.cache
def _peak(dtype: str, platform: str) -> float:
    size = 256 if platform == "cpu" else 2048
    best = _speed(size, dtype)
    while 2 * size**3 / best < _LONG_ENOUGH_S and size < _LARGEST:
        size *= 2
        best = max(best, _speed(size, dtype))
    return best


def _speed(size: int, dtype: str) -> float:
    """FLOP/s of the fastest of ten [size, size] matmuls."""
    accumulator = jnp.int32 if jnp.issubdtype(dtype, jnp.integer) else None
    a = jnp.ones((size, size), dtype)
    dot = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=accumulator))
    return 2 * size**3 / float(sample(lambda: dot(a, a), calls=10, warmup=2).min())
