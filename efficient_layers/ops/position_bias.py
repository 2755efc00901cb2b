# SPDX-License-Identifier: Apache-2.0
"""Numbers added to attention scores that depend on the distance alone: ALiBi and T5's buckets."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def alibi_slopes(num_heads: int) -> np.ndarray:
    """A slope for each head: 2^(-8 i / h) for i = 1 ... h where h is a power of two.

    For other h: the slopes of the power of two p below it, then every second one of 2 p's.

    Reference: Press et al., *Train Short, Test Long* (arXiv 2108.12409), section 3; the rule for
    other h is that of the authors' code, which BLOOM uses.

    >>> alibi_slopes(3).tolist()
    [0.0625, 0.00390625, 0.25]
    """
    power = 2 ** math.floor(math.log2(num_heads))
    own = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    finer = 2.0 ** (-4 * np.arange(1, 2 * power, 2) / power)
    return np.concatenate([own, finer[: num_heads - power]])


def t5_bucket(
    distance: Int[Array, "..."], *, buckets: int, max_distance: int, bidirectional: bool
) -> Int[Array, "..."]:
    """Bucket of the distance key - query: one each for the near ones, then by logarithm.

    With `bidirectional` the upper half of the buckets is for keys after the query; without,
    those are in bucket 0. From `max_distance` on everything is in the last bucket of its half.

    Reference: Raffel et al., *Exploring the Limits of Transfer Learning* (arXiv 1910.10683),
    section 2.1; the spacing is that of the authors' code.
    """
    if bidirectional:
        buckets //= 2
        side = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        side = jnp.zeros_like(distance)
        distance = jnp.maximum(-distance, 0)
    edges = _edges(buckets, max_distance)
    reached = distance[..., None] >= edges.reshape((1,) * distance.ndim + (-1,))
    return side.astype(jnp.int32) + reached.sum(-1, dtype=jnp.int32)


def _edges(buckets: int, max_distance: int) -> np.ndarray:
    """Smallest distance of each bucket from the second on, by the formula in float32."""
    exact = buckets // 2
    distances = np.arange(1, max_distance + 1, dtype=np.float32)
    scale = np.log(distances / np.float32(exact)) / np.float32(math.log(max_distance / exact))
    far = exact + (scale * np.float32(buckets - exact)).astype(np.int32)
    bucket = np.where(distances < exact, distances, np.minimum(far, buckets - 1)).astype(np.int32)
    return np.searchsorted(bucket, np.arange(1, buckets)).astype(np.int32) + 1


def toeplitz(values: Float[Array, "*h l"], n: int, m: int) -> Float[Array, "*h n m"]:
    """y[i, j] = values[j - i + n - 1], with l = n + m - 1.

    Made of copies and one reshape: no gather, and the gradient is no scatter.

    >>> import jax.numpy as jnp
    >>> toeplitz(jnp.arange(4), 2, 3).tolist()
    [[1, 2, 3], [0, 1, 2]]
    """
    *heads, length = values.shape
    padded = jnp.concatenate([values, values[..., :1]], -1)  # rows of length + 1, read in steps of
    rows = jnp.broadcast_to(padded[..., None, :], (*heads, n, length + 1))  # length: one back each
    flat = rows.reshape(*heads, n * (length + 1))[..., : n * length]
    return flat.reshape(*heads, n, length)[..., n - 1 : n - 1 + m]
