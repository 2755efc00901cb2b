# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding: pairs of features turned by an angle that grows with the position."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from efficient_layers.ops.precision import float32_or_wider


def rotary_frequencies(features: int, base: float = 10_000.0) -> np.ndarray:
    """base^(-2 i / features) for i = 0 ... features / 2 - 1, in radians a position.

    >>> rotary_frequencies(4, 100.0).tolist()
    [1.0, 0.1]
    """
    return float(base) ** (-np.arange(0, features, 2, dtype=np.float64) / features)


def rotate(
    x: Float[Array, "*b n h d"],
    positions: Int[Array, "*b n"] | Int[Array, " n"],
    frequencies: Float[np.ndarray, " f"],
    *,
    interleaved: bool = False,
) -> Float[Array, "*b n h d"]:
    """Turns pair i of a token's first 2 f features by the angle positions x frequencies[i].

    The pairs are features (i, i + f), or (2 i, 2 i + 1) if interleaved; features from 2 f on stay
    as they are. Angles are float32 or wider: a bfloat16 angle is off by a whole turn from position
    1,000 on.

    Reference: Su et al., *RoFormer* (arXiv 2104.09864), section 3.2.2, equation 34.
    """
    wide, turned = float32_or_wider(x.dtype), 2 * len(frequencies)
    step = jnp.asarray(frequencies, wide).reshape((1,) * (x.ndim - 1) + (-1,))
    positions = positions.reshape((1,) * (x.ndim - 2 - positions.ndim) + positions.shape)
    angle = positions[..., None, None].astype(wide) * step  # *b n 1 f
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    part, rest = x[..., :turned].astype(wide), x[..., turned:]
    if interleaved:
        first, second = part[..., 0::2], part[..., 1::2]
    else:
        first, second = jnp.split(part, 2, -1)
    both = first * cos - second * sin, second * cos + first * sin
    y = jnp.stack(both, -1).reshape(part.shape) if interleaved else jnp.concatenate(both, -1)
    y = y.astype(x.dtype)
    return jnp.concatenate([y, rest], -1) if rest.shape[-1] else y


def restarting_positions(segments: Int[Array, "*b n"]) -> Int[Array, "*b n"]:
    """Place of each token in its segment; a segment is a run of equal ids.

    >>> import jax.numpy as jnp
    >>> restarting_positions(jnp.array([7, 7, 7, 2, 2])).tolist()
    [0, 1, 2, 0, 1]
    """
    place = lax.broadcasted_iota(jnp.int32, segments.shape, segments.ndim - 1)
    begins = segments[..., 1:] != segments[..., :-1]
    begins = jnp.concatenate([jnp.ones_like(segments[..., :1], jnp.bool_), begins], -1)
    return place - lax.cummax(jnp.where(begins, place, 0), axis=segments.ndim - 1)
