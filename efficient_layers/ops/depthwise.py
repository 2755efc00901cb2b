# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution as a sum of shifted slices.

    y[n, i, c] = sum_t x[n, s i + d t, c] w[t, c]

XLA's CPU backend runs a grouped convolution one channel at a time (129 ms for 3x3 on 8x56x56x144, two
cores); the sum of nine slices times per-channel weights is one fused loop over memory (3 ms).
"""

import itertools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax

from efficient_layers.ops.trilinear import Form
from efficient_layers.ops.window import Window

MAX_TAPS = 64


def serves(window: Window) -> bool:
    """Whether `window` is depthwise (any channel multiplier) with a kernel small enough to unroll."""
    taps = 1
    for k in window.kernel:
        taps *= k
    return window.w[-2] == 1 and window.groups == window.x[-1] > 1 and taps <= MAX_TAPS


@dataclass(frozen=True)
class Depthwise(Form):
    """Shifted slices forward and back; the kernel's gradient row by row."""

    @property
    def multiplier(self) -> int:
        return self.window.w[-1] // self.window.x[-1]

    def forward(self, x: jax.Array, w: jax.Array) -> jax.Array:
        return _sum_of_slices(self.window, _repeat(x, self.multiplier), w)

    def input_gradient(self, w: jax.Array, g: jax.Array) -> jax.Array:
        flipped = lax.rev(w, range(len(self.window.kernel)))
        dx = _sum_of_slices(self.window.transposed(), g, flipped)
        if self.multiplier == 1:
            return dx
        return dx.reshape(*self.window.x, self.multiplier).sum(-1)

    def kernel_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
        padded = _pad(self.window, _repeat(x, self.multiplier)).astype(jnp.float32)
        sums = _kernel_sums if len(self.window.kernel) == 1 else _kernel_sums_by_row
        return sums(self.window, padded, g.astype(jnp.float32)).reshape(self.window.w).astype(g.dtype)

    def map_members(self, function, *operands):
        return jax.vmap(function)(*operands)


def _repeat(x, multiplier):
    return x if multiplier == 1 else jnp.repeat(x, multiplier, axis=-1)


def _pad(window, x):
    spatial = zip(window.padding, window.x_dilation, strict=True)
    config = [(0, 0, 0), *((lo, hi, d - 1) for (lo, hi), d in spatial), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _slices(window, padded, out):
    """For each tap the part of `padded` that it multiplies, of spatial shape `out`."""
    for tap in itertools.product(*map(range, window.kernel)):
        start = [t * d for t, d in zip(tap, window.w_dilation, strict=True)]
        stop = [a + (o - 1) * s + 1 for a, o, s in zip(start, out, window.strides, strict=True)]
        index = tuple(slice(*abs_) for abs_ in zip(start, stop, window.strides, strict=True))
        yield tap, padded[(slice(None), *index)]


def _sum_of_slices(window, x, w):
    padded = _pad(window, x)
    accumulator = jnp.promote_types(x.dtype, jnp.float32)
    total = 0.0
    for tap, part in _slices(window, padded, window.y[1:-1]):
        total += part.astype(accumulator) * w[(*tap, 0)].astype(accumulator)
    return total.astype(x.dtype)


def _kernel_sums(window, padded, g):
    axes = tuple(range(g.ndim - 1))
    return jnp.stack([(p * g).sum(axes) for _, p in _slices(window, padded, g.shape[1:-1])])


def _kernel_sums_by_row(window, padded, g):
    """A scan over rows of y, so that what all taps read stays in cache: (taps, c)."""
    row = replace(window, strides=(1, *window.strides[1:]))

    def body(total, i):
        rows = lax.dynamic_slice_in_dim(padded, i * window.strides[0], window.extent[0], axis=1)
        return total + _kernel_sums(row, rows, lax.dynamic_slice_in_dim(g, i, 1, axis=1)), None

    taps = jnp.zeros((window.w[0] * window.w[1] * (window.w[2] if g.ndim == 5 else 1), g.shape[-1]))
    return lax.scan(body, taps, jnp.arange(g.shape[1]))[0]
