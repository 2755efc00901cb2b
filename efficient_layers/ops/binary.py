# SPDX-License-Identifier: Apache-2.0
"""Weights of one bit (+1, -1) or three values (+1, 0, -1), times a scale."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int8

from efficient_layers.ops.quantize import spread, straight_through


def binary_codes(
    w: Float[Array, "..."], shape: tuple[int, ...]
) -> tuple[Int8[Array, "..."], Float[Array, "..."]]:
    """sign(w), 0 counted as +1, and mean|w| over each part of a scale of `shape`.

    The nearest scaled signs in the Frobenius norm. Reference: Rastegari et al., *XNOR-Net*
    (arXiv 1603.05279), section 3.1; signs alone: Courbariaux et al., *BinaryConnect* (arXiv
    1511.00363).
    """
    signs = jnp.where(w >= 0, 1, -1).astype(jnp.int8)
    return signs, _mean(jnp.abs(w), shape)


def binary(w: Float[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """The value of `binary_codes`, with dy/dw = mean|w| where |w| <= 1, else 0 (XNOR-Net, 3.1).

    The term of the paper's gradient that comes from the scale, 1 / n of the others', is left out.
    """
    codes, scale = binary_codes(w, shape)
    wide = spread(scale, w.shape)
    return straight_through(
        codes.astype(w.dtype) * wide, lax.stop_gradient(wide) * jnp.clip(w, -1, 1)
    )


def ternary_codes(
    w: Float[Array, "..."], shape: tuple[int, ...]
) -> tuple[Int8[Array, "..."], Float[Array, "..."]]:
    """sign(w) where |w| > 0.7 mean|w|, else 0; the scale is the mean of |w| over the former.

    Reference: Li et al., *Ternary Weight Networks* (arXiv 1605.04711), section 2.2 and 2.3.
    """
    size = jnp.abs(w)
    large = size > spread(0.7 * _mean(size, shape), w.shape)
    share = _mean(large.astype(w.dtype), shape)
    scale = _mean(jnp.where(large, size, 0), shape) / jnp.where(share > 0, share, 1)
    return jnp.where(large, jnp.sign(w), 0).astype(jnp.int8), scale


def ternary(w: Float[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """The value of `ternary_codes`, with dy/dw = 1: gradients go to the full weights."""
    codes, scale = ternary_codes(w, shape)
    return straight_through(codes.astype(w.dtype) * spread(scale, w.shape), w)


def _mean(x, shape):
    split = [n for size, parts in zip(x.shape, shape, strict=True) for n in (parts, size // parts)]
    return x.reshape(split).mean(tuple(range(1, 2 * x.ndim, 2)))
