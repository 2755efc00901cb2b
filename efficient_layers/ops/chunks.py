# SPDX-License-Identifier: Apache-2.0
"""Sequences cut into chunks, and the states that pass from each chunk to the next.

The causal forms of linear attention compute within chunks by products of matrices, and carry what
came before as a matrix of states; so the work grows with n, in few large products. Letters: c
chunks of l positions; m features of keys, d of values.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.precision import float32_or_wider


def to_chunks(x: Float[Array, "*b n d"], size: int) -> Float[Array, "*b c l d"]:
    """Chunks of `size` positions; the last one is filled up with zeros."""
    *batch, n, d = x.shape
    count = -(-n // size)
    x = jnp.pad(x, [(0, 0)] * len(batch) + [(0, count * size - n), (0, 0)])
    return x.reshape(*batch, count, size, d)


def from_chunks(x: Float[Array, "*b c l d"], n: int) -> Float[Array, "*b n d"]:
    """The first `n` positions of all chunks."""
    *batch, count, size, d = x.shape
    return x.reshape(*batch, count * size, d)[..., :n, :]


def chunk_for(n: int, size: int) -> int:
    """`size`, or for a shorter sequence the least power of two that holds it."""
    return min(size, 1 << max(n - 1, 0).bit_length())


def wide_einsum(spec: str, *arrays: Any) -> jax.Array:
    """`jnp.einsum` of arrays of one dtype, its sums and its result in float32 at the least."""
    wide = float32_or_wider(arrays[0].dtype)
    return jnp.einsum(spec, *arrays, preferred_element_type=wide)


def carry(
    added: Float[Array, "*b c m d"],
    start: Float[Array, "*b m d"] | None = None,
    decay: Float[Array, "*b c m"] | None = None,
) -> tuple[Float[Array, "*b c m d"], Float[Array, "*b m d"]]:
    """The state before every chunk and the one after the last.

    state <- decay state + added, chunk by chunk; `decay` None stands for 1, `start` None for 0.
    """
    first = jnp.zeros_like(added[..., 0, :, :]) if start is None else start
    axis = added.ndim - 3
    inputs = [jnp.moveaxis(added, axis, 0)]
    if decay is not None:
        inputs.append(jnp.moveaxis(decay, axis, 0))

    def step(state: jax.Array, now: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept = state if decay is None else now[1][..., None] * state
        return kept + now[0], state

    last, before = lax.scan(step, first, inputs)
    return jnp.moveaxis(before, 0, axis), last


def check_chunk(name: str, size: int, *, power_of_two: bool = False) -> None:
    """Raises ValueError unless `size` is a possible number of positions in a chunk."""
    if size < 1 or (power_of_two and size & (size - 1)):
        kind = "a power of two" if power_of_two else "of at least 1"
        raise ValueError(f"{name} expects a chunk_size {kind}. Got {size}.")
