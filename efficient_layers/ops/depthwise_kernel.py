# SPDX-License-Identifier: Apache-2.0
"""The gradient of a depthwise kernel: dw[t, c] = sum_{n, i} x[n, s i + d t, c] g[n, i, c].

A product and its sum in one fusion run column by column with strides (49 ms for 8x56x56x144);
products of whole rows added elementwise to an accumulator run over contiguous memory (4 ms).
"""

import functools
import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax

from efficient_layers.ops.window import Window

# Rows of g that one step adds up in registers, before it reads and writes an accumulator.
MOST_ROWS = 4


def kernel_gradient(window: Window, x: jax.Array, g: jax.Array) -> jax.Array:
    """(n *s c), (n *s' c) -> (*k 1 c), summed in float32 or wider."""
    dtype, wide = g.dtype, jnp.promote_types(x.dtype, jnp.float32)
    if any(d != 1 for d in window.x_dilation):
        x, ones = window.pad(x), (1,) * len(window.kernel)
        window = replace(window, x=x.shape, padding=((0, 0),) * len(ones), x_dilation=ones)
    sums = _sums if len(window.kernel) == 1 else _sums_by_row
    return sums(window, x.astype(wide), g.astype(wide)).reshape(window.w).astype(dtype)


def _sums(window, x, g):
    axes = tuple(range(g.ndim - 1))
    parts = window.slices(window.pad(x), g.shape[1:-1])
    return jnp.stack([(part * g).sum(axes) for _, part in parts])


def _sums_by_row(window, x, g):
    """Some rows of g at a time; nothing is padded, each tap has the columns that it reaches.

    A row of x outside of x counts as zeros. At unit stride (w c) is one axis, which keeps the inner
    loop long where channels are few.
    """
    (n, h, *out, c), height = g.shape, x.shape[1]
    columns = [
        _overlap(window, tap, out) for tap in itertools.product(*map(range, window.kernel[1:]))
    ]
    x, g = x.reshape(n * height, *x.shape[2:]), g.reshape(n * h, *out, c)
    if window.strides[-1] == 1:
        x, g = (a.reshape(*a.shape[:-2], -1) for a in (x, g))
        columns = [(_flat(a, c), _flat(b, c)) for a, b in columns]
    rows = math.gcd(n * h, MOST_ROWS)
    shift, stride = window.padding[0][0], window.strides[0]

    def add_rows(sums, step):
        numbers = [step * rows + r for r in range(rows)]
        gs = [lax.dynamic_index_in_dim(g, i, keepdims=False) for i in numbers]
        new = []
        for tap in range(window.kernel[0]):
            offset = tap * window.w_dilation[0] - shift
            xs = [_row(x, i // h, i % h * stride + offset, height) for i in numbers]
            for of_x, of_g in columns:
                products = [a[of_x] * b[of_g] for a, b in zip(xs, gs, strict=True)]
                new.append(functools.reduce(jnp.add, products, sums[len(new)]))
        return new, None

    start = [jnp.zeros_like(g[0][of_g]) for _ in range(window.kernel[0]) for _, of_g in columns]
    totals, _ = lax.scan(add_rows, start, jnp.arange(n * h // rows))
    return jnp.stack([total.reshape(-1, c).sum(0) for total in totals])


def _row(x, image, y, height):
    """Row y of an image, zeros where it has no such row."""
    inside = (y >= 0) & (y < height)
    row = lax.dynamic_index_in_dim(x, image * height + jnp.clip(y, 0, height - 1), keepdims=False)
    return jnp.where(inside, row, 0)


def _overlap(window, tap, out):
    """Index into a row of x and into a row of g: what the tap (without its first axis) joins."""
    of_x, of_g = [], []
    for axis, t in enumerate(tap, 1):
        lo, hi = window.reach(axis, t)
        stride, d = window.strides[axis], window.w_dilation[axis]
        begin = lo * stride + t * d - window.padding[axis][0]
        of_x.append(slice(begin, max(begin, begin + (hi - lo - 1) * stride + 1), stride))
        of_g.append(slice(lo, hi))
    return tuple(of_x), tuple(of_g)


def _flat(index, c):
    """The index with its last axis and the c channels as one axis."""
    last = index[-1]
    return (*index[:-1], slice(last.start * c, last.stop * c))
