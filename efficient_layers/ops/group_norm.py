# SPDX-License-Identifier: Apache-2.0
"""Group normalisation, channels last: sums a channel first, then sums of these within a group.

    y = a z + bias,   z = x - E[x],   a = scale / sqrt(E[z^2] + epsilon)

E over a group's positions and channels. Reducing x reshaped to (..., groups, c / groups) gives
XLA's CPU backend an inner loop of c / groups numbers; here each reading of x runs over whole rows
of channels, and what remains is a number a channel: 4.5 ms for 9.7 forward, 9.0 for 14.2 with the
gradient (8x56x56x96, 32 groups, float32, 2 cores). Autodiff of this form is as fast as a derivative
in closed form (8.6). A mean of 10,000 deviations costs three digits (an error of 1e-3, the rounding
of the mean); to centre twice, or to shift by an element first, would take 1.4 times as long.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.lowering import current_lowering
from efficient_layers.ops.precision import float32_or_wider


def group_norm(
    x: Float[Array, "*b c"],
    scale: Float[Array, "c"] | None = None,
    bias: Float[Array, "c"] | None = None,
    *,
    groups: int,
    axes: Sequence[int] | None = None,
    epsilon: float = 1e-6,
) -> Float[Array, "*b c"]:
    """x with mean 0 and variance 1 within each example's groups of c / groups channels.

    Statistics run over `axes` besides the channels: all but the first and the last axis where None.
    They are float32 or wider; y has x's dtype.

    Reference: Wu & He, *Group Normalization* (arXiv 1803.08494), section 3.1.

    >>> import jax.numpy as jnp
    >>> group_norm(jnp.array([[1.0, 3.0, 10.0, 30.0]]), groups=2, epsilon=0.0)
    Array([[-1.,  1., -1.,  1.]], dtype=float32)

    Raises:
      ValueError: groups that do not divide the channels.
    """
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise ValueError(f"group_norm expects groups that divide {channels}. Got {groups}.")
    over = tuple(range(1, x.ndim - 1) if axes is None else (axis % x.ndim for axis in axes))
    wide = x.astype(float32_or_wider(x.dtype))
    mean = _by_group if current_lowering() == "reference" else _by_channel
    z = wide - mean(wide, groups, over)
    row = (1,) * (x.ndim - 1) + (-1,)
    a = lax.rsqrt(mean(z * z, groups, over) + epsilon)
    a = a if scale is None else a * scale.reshape(row).astype(a.dtype)
    y = z * a
    return (y if bias is None else y + bias.reshape(row).astype(y.dtype)).astype(x.dtype)


def _by_group(x, groups, over):
    """E[x] of each group, spread over its channels: the definition."""
    return _spread(_grouped(x, groups).mean((*over, x.ndim), keepdims=True), x.shape[-1])


def _by_channel(x, groups, over):
    count = math.prod(x.shape[axis] for axis in over) * (x.shape[-1] // groups)
    sums = _grouped(x.sum(over, keepdims=True), groups).sum(-1, keepdims=True)
    return _spread(sums / count, x.shape[-1])


def _grouped(x: jax.Array, groups: int) -> jax.Array:
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def _spread(group: jax.Array, channels: int) -> jax.Array:
    """(..., groups, 1) -> (..., channels)."""
    size = channels // group.shape[-2]
    return jnp.broadcast_to(group, (*group.shape[:-1], size)).reshape(*group.shape[:-2], channels)
