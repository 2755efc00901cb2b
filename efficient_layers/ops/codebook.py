# SPDX-License-Identifier: Apache-2.0
"""Weights picked from a codebook by small integers.

XLA's own gather, and its gradient, a scatter-add: the gradient of a centroid is the sum of the
gradients of the weights that share it. For 768 x 3072 weights of 4 bits the two take 1.7 and 3.0 ms
of one CPU's time; a masked sum a centroid takes 99 for the gradient, a product with one-hot rows
166. So there is one form, everywhere.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def picked(
    codebook: Float[Array, "k"], codes: UInt8[Array, "*s c"], *, groups: int, zero: bool = False
) -> Float[Array, "*s c"]:
    """codebook[g(c)][codes[..., c]], where channels fall into `groups` equal runs g(c).

    With `zero`, code 0 is the number 0 and the codebook holds those from 1 on.
    """
    books = codebook.reshape(groups, -1)
    if zero:
        books = jnp.concatenate([jnp.zeros_like(books, shape=(groups, 1)), books], axis=1)
    places = codes.astype(jnp.int32)
    if groups > 1:
        channels = jnp.arange(codes.shape[-1], dtype=jnp.int32)
        places = places + channels // (codes.shape[-1] // groups) * books.shape[1]
    return books.reshape(-1).at[places].get(mode="promise_in_bounds")
