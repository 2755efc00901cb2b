# SPDX-License-Identifier: Apache-2.0
"""Products whose weights are computed, under vmap over the weights."""

import jax
from jax import lax
from jaxtyping import Array, Float


def rows_times(rows: Float[Array, "n d"], weights: Float[Array, "d o"]) -> Float[Array, "n o"]:
    """rows @ weights, under vmap over `weights` alone a product a member.

    jax.vmap would make one product of the shared rows and all weights side by side, and XLA's CPU
    backend then writes weights that a fusion computes (rounded, looked up) across: 1.6 times the
    calls of two members, one after the other, instead of 1.0. Rows to which no rows of the weights'
    are joined are the members' own to jax.vmap, and just the rows to XLA.
    """
    none: jax.Array = weights[:, :0].T
    return lax.concatenate([rows, none], 0) @ weights
