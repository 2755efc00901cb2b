# SPDX-License-Identifier: Apache-2.0
"""Quant-Noise: only a random share of the weights is quantised in each forward pass."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def quant_noise(
    w: Float[Array, "..."], quantised: Float[Array, "..."], key: jax.Array, share: float
) -> Float[Array, "..."]:
    """`quantised` at entries drawn with probability `share`, `w` itself at the others.

    The former get the straight-through gradient of `quantised`, the latter an unbiased one.

    Reference: Fan et al., *Training with Quantization Noise for Extreme Model Compression* (arXiv
    2004.07320), section 4.
    """
    chosen = jax.random.bernoulli(key, share, w.shape)
    return jnp.where(chosen, quantised, w)
