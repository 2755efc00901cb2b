# SPDX-License-Identifier: Apache-2.0
"""Temporary bytes of compiled attention: linear in the length, never n x n."""

import jax
import jax.numpy as jnp
import pytest

from efficient_layers import ops
from efficient_layers.measure.memory import compiled_memory
from efficient_layers.ops.attention import dot_product_attention

# A block of scores holds at most 2^20 numbers or 128 rows; XLA keeps two or three of them.
MATRICES = 4


def temporaries(n: int, **options) -> int:
    """Bytes beside arguments and results, forward and backward, one batch of 2 heads of 16."""
    x = [jax.ShapeDtypeStruct((1, n, 2, 16), jnp.float32)] * 4

    def both(q, k, v, g):
        y, pull = jax.vjp(lambda *x: dot_product_attention(*x, **options), q, k, v)
        return y, pull(g)

    with ops.lowering("cpu"):
        compiled = jax.jit(both).lower(*x).compile()
    return compiled_memory(compiled)["temporary_bytes"]


def bound(n: int) -> int:
    """Some blocks of scores, and a few dozen arrays of the size of q."""
    return MATRICES * 4 * max(2**20, 128 * n) + 40 * 4 * n * 2 * 16


def test_two_heads_of_2048_store_no_matrix():
    assert temporaries(2048) < bound(2048) < 2 * 2 * 4 * 2048**2


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 512}])
def test_memory_is_linear_to_16384(options):
    sizes = {n: temporaries(n, **options) for n in (4096, 8192, 16384)}
    assert all(size < bound(n) for n, size in sizes.items()), sizes
    assert sizes[16384] < 4.5 * sizes[4096], sizes  # n x n would be 16 times
