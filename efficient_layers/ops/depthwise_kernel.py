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

from efficient_layers.ops.precision import float32_or_wider
from efficient_layers.ops.window import Window

# Rows of g that one step adds up in registers, before it reads and writes an accumulator.
MOST_ROWS = 4
# Up to so many products a kernel row, one loop for its rows in turn (a third as much to compile;
# 14x14x576, 3x3: 0.86 ms for 0.93, 5x5 on 14x14x480: 1.80 for 2.05, 8 images). It runs on one core.
MOST_PRODUCTS_IN_TURN = 6_000_000


def kernel_gradient(window: Window, x: jax.Array, g: jax.Array) -> jax.Array:
    """(n *s c), (n *s' c) -> (*k 1 c), summed in float32 or wider."""
    dtype, wide = g.dtype, float32_or_wider(x.dtype)
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

    At unit stride (w c) is one axis, which keeps the inner loop long where channels are few.
    """
    n, h, *out, c = g.shape
    columns = [
        _overlap(window, tap, out) for tap in itertools.product(*map(range, window.kernel[1:]))
    ]
    x, g = x.reshape(-1, *x.shape[2:]), g.reshape(n * h, *out, c)
    if window.strides[-1] == 1:
        x, g = (a.reshape(*a.shape[:-2], -1) for a in (x, g))
        columns = [(_flat(a, c), _flat(b, c)) for a, b in columns]
    rows = math.gcd(n * h, MOST_ROWS)
    steps = n * h // rows

    def sums(taps):
        def add_rows(sums, step):
            places = [_place(step, r, steps, h) for r in range(rows)]
            at = [step + r * steps for r in range(rows)]
            gs = [lax.dynamic_index_in_dim(g, i, keepdims=False) for i in at]
            new: list[jax.Array] = []
            for tap in taps:
                xs = [_row(x, window, tap, *place) for place in places]
                for of_x, of_g in columns:
                    products = [a[of_x] * b[of_g] for a, b in zip(xs, gs, strict=True)]
                    new.append(functools.reduce(jnp.add, products, sums[len(new)]))
            return new, None

        start = [jnp.zeros_like(g[0][of_g]) for _ in taps for _, of_g in columns]
        totals, _ = lax.scan(add_rows, start, jnp.arange(steps))
        # Sums of one column's taps together: a third of the reductions to compile.
        by_column = (jnp.stack(totals[i :: len(columns)]) for i in range(len(columns)))
        return jnp.stack([t.reshape(len(t), -1, c).sum(1) for t in by_column], 1)

    if g.size * len(columns) <= MOST_PRODUCTS_IN_TURN:
        return lax.map(lambda tap: sums([tap]), jnp.arange(window.kernel[0]))
    return sums(range(window.kernel[0]))


def _place(step, r, steps, h):
    """Image and row of the r-th row in a step, and the range of all its rows.

    A step's rows lie `steps` apart: in different images at one height, so that one condition tells
    whether they see padding, or at heights most of which never see it. Neighbouring rows, with four
    conditions, took 1.5 to 3 times as long to compile.
    """
    if steps % h == 0:
        return step // h + r * (steps // h), step % h, (0, h)
    if h % steps == 0:
        first = r * steps % h
        return r * steps // h, step + first, (first, first + steps)
    number = step + r * steps
    return number // h, number % h, (0, h)


def _row(x, window, tap, image, y, ys):
    """The row of x that row y of an image of g meets at a tap, zeros where there is none."""
    height, stride = window.x[1], window.strides[0]
    offset = tap * window.w_dilation[0] - window.padding[0][0]
    at = y * stride + offset
    lo, hi = window.reach(0, tap) if isinstance(tap, int) else (0, 0)
    if lo <= ys[0] and ys[1] <= hi:
        return lax.dynamic_index_in_dim(x, image * height + at, keepdims=False)
    inside = (at >= 0) & (at < height)
    row = image * height + jnp.clip(at, 0, height - 1)
    return jnp.where(inside, lax.dynamic_index_in_dim(x, row, keepdims=False), 0)


def _overlap(window, tap, out):
    """Index into a row of x and into a row of g: what the tap (without its first axis) joins."""
    of_x, of_g = [], []
    for axis, t in enumerate(tap, 1):
        lo, hi = window.reach(axis, t)
        of_x.append(window.span(axis, t, lo, hi))
        of_g.append(slice(lo, hi))
    return tuple(of_x), tuple(of_g)


def _flat(index, c):
    """The index with its last axis and the c channels as one axis."""
    last = index[-1]
    return (*index[:-1], slice(last.start * c, last.stop * c))
