# SPDX-License-Identifier: Apache-2.0
"""Positive orthogonal random features (FAVOR+): exp(q . k) as the mean of products of features."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.chunks import wide_einsum


def orthogonal_directions(key: jax.Array, m: int, d: int, dtype=jnp.float32) -> Float[Array, "m d"]:
    """m normal vectors of d numbers, orthogonal within every block of d of them.

    Directions from the QR decomposition of normal matrices, lengths those of independent normal
    vectors: each row alone is standard normal.
    """
    blocks = -(-m // d)
    directions, lengths = jax.random.split(key)
    q, r = jnp.linalg.qr(jax.random.normal(directions, (blocks, d, d)))
    q = q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[:, None, :]  # uniform among rotations
    rows = q.swapaxes(-1, -2).reshape(blocks * d, d)[:m]
    norms = jnp.linalg.norm(jax.random.normal(lengths, (m, d)), axis=-1, keepdims=True)
    return (rows * norms).astype(dtype)


def softmax_features(
    x: Float[Array, "*b n d"], projection: Float[Array, "m d"], *, query: bool
) -> Float[Array, "*b n m"]:
    """exp(w . x / d^(1/4) - |x|^2 / (2 sqrt(d))) for every row w of the projection.

    For a query divided by the largest of its m features, a factor that cancels in attention. Keys
    are not scaled (a common factor would have to know later keys): their exponent is below
    |w|^2 / 2, about d / 2, so float32 holds the features and their sums to d = 128 or so.
    """
    root = x.shape[-1] ** -0.25
    exponent = wide_einsum("...nd,md->...nm", x * root, projection.astype(x.dtype))
    x = x.astype(exponent.dtype)
    exponent -= (x * x).sum(-1, keepdims=True) * (root * root / 2)
    if query:
        exponent -= lax.stop_gradient(exponent.max(-1, keepdims=True))
    return jnp.exp(exponent)
