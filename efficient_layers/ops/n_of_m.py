# SPDX-License-Identifier: Apache-2.0
"""Which n of every m consecutive weights are largest: the mask of N:M sparsity."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def n_of_m_mask(w: Float[Array, "i o"], n: int, m: int) -> Bool[Array, "i o"]:
    """True at the n largest magnitudes of every m consecutive entries of a column.

    Of equal magnitudes the first are kept, so exactly n are. Counts how many of the group beat an
    entry: m comparisons an entry, all elementwise (a sort runs serially on XLA's CPU backend).
    """
    size = jnp.abs(w).reshape(-1, m, w.shape[-1])  # group, place, o
    beaten = jnp.zeros(size.shape, jnp.int32)
    place = jnp.arange(m)[:, None]
    for other in range(m):
        rival = size[:, other : other + 1]
        beats = (rival > size) | ((rival == size) & (other < place))
        beaten += beats.astype(jnp.int32)
    return (beaten < n).reshape(w.shape)
