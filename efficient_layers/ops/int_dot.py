# SPDX-License-Identifier: Apache-2.0
"""Products of int8 arrays with sums in int32: exact up to 2^17 terms."""

from collections.abc import Sequence
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int8, Int32

from efficient_layers.ops.lowering import current_lowering

Pads = Sequence[tuple[int, int]]


def int_dot(
    x: Int8[Array, "m k"],
    w: Int8[Array, "k n"],
    *,
    x_zero: Int8[Array, "_ 1"] | None = None,
    w_zero: Int8[Array, "1 _"] | None = None,
) -> Int32[Array, "m n"]:
    """sum_k (x[m, k] - x_zero[m]) (w[k, n] - w_zero[n]) in int32.

    What multiplies is int8: x w - x_zero sum_k w - w_zero sum_k x + k x_zero w_zero (Jacob et al.,
    arXiv 1712.05877, section 2.3).

    XLA's CPU backend (jax 0.10.2) has a kernel for int8 (YNNPACK) from two rows on; it widens a
    product of one row to int32 and takes 1.5 times as long (768 x 3072: 1.20 ms, 0.81 for two
    rows). So one row is given a second one there, of ones where the sums over w are asked for.

    Raises:
      TypeError: an operand that is not int8.
    """
    _check_types("int_dot", x, w)
    rows, size = x.shape
    sums = None
    if current_lowering() == "cpu" and (x_zero is not None or _is_one(rows)):
        more = jnp.full((1, size), 0 if x_zero is None else 1, jnp.int8)
        y = _dot(jnp.concatenate([x, more]), w)
        y, sums = y[:-1], y[-1:]
    else:
        y = _dot(x, w)
    if x_zero is not None:
        sums = w.astype(jnp.int32).sum(0, keepdims=True) if sums is None else sums
        y = y - x_zero.astype(jnp.int32) * sums
    if w_zero is not None:
        shift = 0 if x_zero is None else size * x_zero.astype(jnp.int32)
        y = y - w_zero.astype(jnp.int32) * (x.astype(jnp.int32).sum(1, keepdims=True) - shift)
    return y


def _is_one(size: object) -> bool:
    return isinstance(size, int) and size == 1  # a symbolic size is not compared


def _dot(x: jax.Array, w: jax.Array) -> jax.Array:
    return lax.dot(x, w, preferred_element_type=jnp.int32)


def int_conv(
    x: Int8[Array, "b *s c"],
    w: Int8[Array, "*k i o"],
    *,
    strides: Sequence[int],
    padding: Pads,
    dilation: Sequence[int],
    groups: int = 1,
    pad_code: Int8[Array, ""] | None = None,
) -> Int32[Array, "b *t o"]:
    """Convolution, channels last, sums in int32; what lies outside of x is `pad_code` (None: 0).

    On a CPU a depthwise convolution is the sum of shifted slices, a grouped one a convolution a
    group, 1 x 1 a product of matrices; XLA's own grouped convolutions of integers are loops.

    Raises:
      TypeError: an operand that is not int8.
    """
    _check_types("int_conv", x, w)
    if pad_code is not None:
        x = lax.pad(x, pad_code, [(0, 0, 0), *[(lo, hi, 0) for lo, hi in padding], (0, 0, 0)])
        padding = [(0, 0)] * (x.ndim - 2)
    if current_lowering() == "cpu":
        if groups == x.shape[-1] and groups > 1:
            return _depthwise(x, w, strides, padding, dilation)
        if groups > 1:
            parts = zip(jnp.split(x, groups, -1), jnp.split(w, groups, -1), strict=True)
            done = [_conv(a, b, strides, padding, dilation, 1) for a, b in parts]
            return jnp.concatenate(done, -1)
        pointwise = all(n == 1 for n in (*w.shape[:-2], *strides))
        if pointwise and not any(map(any, padding)):
            y = int_dot(x.reshape(-1, x.shape[-1]), w.reshape(w.shape[-2:]))
            return y.reshape(*x.shape[:-1], w.shape[-1])
    return _conv(x, w, strides, padding, dilation, groups)


def _conv(x, w, strides, padding, dilation, groups) -> jax.Array:
    rank = x.ndim - 2
    numbers = lax.ConvDimensionNumbers(
        (0, rank + 1, *range(1, rank + 1)),
        (rank + 1, rank, *range(rank)),
        (0, rank + 1, *range(1, rank + 1)),
    )
    return lax.conv_general_dilated(
        x,
        w,
        tuple(strides),
        list(padding),
        rhs_dilation=tuple(dilation),
        dimension_numbers=numbers,
        feature_group_count=groups,
        preferred_element_type=jnp.int32,
    )


def _depthwise(x, w, strides, padding, dilation) -> jax.Array:
    """The sum over taps of a slice of x times the tap's weights, output channel c m + j."""
    kernel, (out,) = w.shape[:-2], w.shape[-1:]
    x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = [(n - e) // s + 1 for n, e, s in zip(x.shape[1:-1], extents, strides, strict=True)]
    total = jnp.zeros((x.shape[0], *sizes, out), jnp.int32)
    for tap in product(*map(range, kernel)):
        low = [t * d for t, d in zip(tap, dilation, strict=True)]
        high = [a + (n - 1) * s + 1 for a, n, s in zip(low, sizes, strides, strict=True)]
        part = lax.slice(
            x, (0, *low, 0), (x.shape[0], *high, x.shape[-1]), (1, *strides, 1)
        ).astype(jnp.int32)
        part = part if out == x.shape[-1] else jnp.repeat(part, out // x.shape[-1], -1)
        total = total + part * w[(*tap, 0)].astype(jnp.int32)
    return total


def _check_types(name: str, *arrays: jax.Array) -> None:
    for array in arrays:
        if array.dtype != jnp.int8:
            raise TypeError(f"{name} expects int8 operands. Got {array.dtype}.")
