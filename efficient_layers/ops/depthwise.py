# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution as a sum of shifted slices.

    y[n, i, c] = sum_t x[n, s i + d t, c] w[t, c]

XLA's CPU backend runs a grouped convolution one channel at a time (129 ms for 3x3 on 8x56x56x144,
two cores); the sum of nine slices times per-channel weights is one fused loop over memory (3 ms).
"""

import functools
import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax

from efficient_layers.ops.trilinear import Form
from efficient_layers.ops.window import Window

MAX_TAPS = 64
IMAGES_AT_ONCE = 16  # as many as keep the accumulators of a row in cache


def serves(window: Window) -> bool:
    """Whether `window` is depthwise (any channel multiplier) with a kernel to unroll."""
    channelwise = window.w[-2] == 1 and window.groups == window.x[-1] > 1
    return channelwise and window.taps <= MAX_TAPS


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
        wide = _wide(x.dtype)
        padded = self.window.pad(_repeat(x, self.multiplier)).astype(wide)
        sums = _kernel_sums if len(self.window.kernel) == 1 else _kernel_sums_by_row
        return sums(self.window, padded, g.astype(wide)).reshape(self.window.w).astype(g.dtype)

    def map_members(self, function, *operands):
        return jax.vmap(function)(*operands)


def _wide(dtype):
    """At least float32; `jnp.promote_types` refuses bfloat16 under strict promotion."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def _repeat(x, multiplier):
    return x if multiplier == 1 else jnp.repeat(x, multiplier, axis=-1)


def _sum_of_slices(window, x, w):
    wide = _wide(x.dtype)
    w = w.astype(wide)
    parts = window.slices(window.pad(x), window.y[1:-1])
    products = (part.astype(wide) * w[(*tap, 0)] for tap, part in parts)
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _kernel_sums(window, padded, g):
    axes = tuple(range(g.ndim - 1))
    return jnp.stack([(p * g).sum(axes) for _, p in window.slices(padded, g.shape[1:-1])])


def _kernel_sums_by_row(window, padded, g):
    """A row of y at a time, its products added elementwise to an accumulator: (*k, c).

    A product and its sum in one fusion run column by column with strides; whole rows run over
    contiguous memory, on both cores (9 ms for 24 on 16x56x56x144). At unit stride (w c) is one
    axis, which keeps the inner loop long where channels are few (10 ms for 28 on 16x112x112x32).
    """
    n, h, *out, c = g.shape
    dilation, stride = window.w_dilation[0], window.strides[0]
    inner = replace(window, w=window.w[1:], strides=window.strides[1:])
    inner = replace(inner, w_dilation=window.w_dilation[1:])
    sums = [window.kernel[0], *out, c]
    if inner.strides[-1] == 1:
        padded, g = (a.reshape(*a.shape[:-2], -1) for a in (padded, g))
        inner = replace(inner, w_dilation=(*inner.w_dilation[:-1], inner.w_dilation[-1] * c))
        out = [*out[:-1], out[-1] * c]
    images = math.gcd(n, IMAGES_AT_ONCE)

    def add_row(sums, i):
        image, y = i // h * images, i % h
        rows = lax.dynamic_slice_in_dim(padded, image, images)
        rows = lax.dynamic_slice_in_dim(rows, y * stride, window.extent[0], axis=1)[:, ::dilation]
        row = lax.dynamic_slice_in_dim(lax.dynamic_slice_in_dim(g, image, images), y, 1, axis=1)
        parts = inner.slices(rows, tuple(out), leading=2)
        return [total + part * row for total, (_, part) in zip(sums, parts, strict=True)], None

    zeros = jnp.zeros((images, window.kernel[0], *g.shape[2:]), g.dtype)
    start = [zeros] * math.prod(inner.kernel)
    totals, _ = lax.scan(add_row, start, jnp.arange(n // images * h))
    axes = (0, *range(2, len(sums)))
    return jnp.stack([total.reshape(images, *sums).sum(axes) for total in totals], axis=1)
