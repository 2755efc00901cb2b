# SPDX-License-Identifier: Apache-2.0
"""Learned step size quantisation (LSQ)."""

from math import prod, sqrt

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.precision import float32_or_wider
from efficient_layers.ops.quantize import code_range, spread, straight_through


def lsq(x: Float[Array, "..."], step: Float[Array, "..."], *, bits: int = 8) -> Float[Array, "..."]:
    """step clip(round(x / step), -2^(bits-1), 2^(bits-1) - 1), with LSQ's gradients.

    dy/dx is 1 inside of the range and 0 outside. dy/dstep is round(x / step) - x / step inside,
    the least or the largest code outside, times 1 / sqrt(elements a step serves x largest code).
    `step` has the shape of a scale of x (`efficient_layers.ops.quantize`). No gradient is
    written by hand: rounding is passed straight through, the rest is differentiated.

    Reference: Esser et al., *Learned Step Size Quantization* (arXiv 1902.08153), sections 2.1 and
    2.2.
    """
    least, most = code_range(bits, symmetric=False)
    wide = float32_or_wider(x.dtype)
    served = max(prod(x.shape) // max(prod(step.shape), 1), 1)
    step = spread(_scaled_gradient(step.astype(wide), 1 / sqrt(served * most)), x.shape)
    clipped = jnp.clip(x.astype(wide) / step, least, most)
    return (straight_through(jnp.round(clipped), clipped) * step).astype(x.dtype)


def _scaled_gradient(step: Float[Array, "..."], factor: float) -> Float[Array, "..."]:
    """`step`, with `factor` times its gradient."""
    kept = lax.stop_gradient(step)
    return kept + factor * (step - kept)


def lsq_step(
    x: Float[Array, "..."], shape: tuple[int, ...], *, bits: int = 8
) -> Float[Array, "..."]:
    """The step to start from: 2 mean|x| / sqrt(largest code), of `shape` (section 2.1)."""
    split = [n for size, parts in zip(x.shape, shape, strict=True) for n in (parts, size // parts)]
    mean = jnp.abs(x.reshape(split)).mean(tuple(range(1, 2 * x.ndim, 2)))
    return 2 * mean / sqrt(code_range(bits)[1])
