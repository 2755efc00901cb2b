# SPDX-License-Identifier: Apache-2.0
"""Attention with linear biases, as a setting of attention layers or used alone."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from efficient_layers.layers.position import Position
from efficient_layers.ops.position_bias import alibi_slopes


@dataclass(frozen=True)
class ALiBi(Position):
    """Subtracts slope x |distance| from the scores: far keys count less, each head its own way.

    The slopes are fixed: 2^(-8 i / h) for head i of h; for an h that is no power of two, as in the
    authors' code. No parameters, and no limit of length; trained on short sequences it works on
    longer ones. Attention layers never store the distances.

    Differs from the paper: without `causal`, keys after the query count as those before it do.

    Reference: Press et al., *Train Short, Test Long: Attention with Linear Biases Enables Input
    Length Extrapolation* (arXiv 2108.12409), section 3.

    >>> import efficient_layers as el
    >>> el.layers.ALiBi().bias(2, 3, 3)[0, 2].tolist()
    [-0.125, -0.0625, -0.0]
    """

    def slopes(self, num_heads: int) -> np.ndarray:
        """(h,), positive."""
        return alibi_slopes(num_heads)

    def bias(self, num_heads: int, n: int, m: int) -> Float[Array, "h n m"]:
        """What is added to the scores of n queries and m keys, both from position 0 on."""
        distance = np.abs(np.arange(n)[:, None] - np.arange(m))
        return jnp.asarray(-alibi_slopes(num_heads)[:, None, None] * distance, jnp.float32)
