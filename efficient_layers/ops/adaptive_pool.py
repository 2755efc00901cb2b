# SPDX-License-Identifier: Apache-2.0
"""Average pooling of images of any size to one size."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def adaptive_avg_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b size size c"]:
    """The mean of x over size x size cells; cell i of n along h is floor(i h/n) to ceil((i+1) h/n).

    As torch's `adaptive_avg_pool2d`: cells overlap where `size` does not divide h, and repeat rows
    where it is larger.

    >>> import jax.numpy as jnp
    >>> from efficient_layers.ops.adaptive_pool import adaptive_avg_pool
    >>> adaptive_avg_pool(jnp.arange(9.0).reshape(1, 3, 3, 1), 2)[0, :, :, 0]
    Array([[2., 3.],
           [5., 6.]], dtype=float32)
    """
    with jax.named_scope("adaptive_avg_pool"):
        for axis in (1, 2):
            n = x.shape[axis]
            if n != size:
                bounds = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
                cells = [jax.lax.slice_in_dim(x, lo, hi, axis=axis) for lo, hi in bounds]
                x = jnp.stack([cell.mean(axis) for cell in cells], axis)
    return x
