# SPDX-License-Identifier: Apache-2.0
"""Rows times quantised weights: as a product of floats, or of int8 with its scales."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int8, UInt8

from efficient_layers.ops.int_dot import int_dot
from efficient_layers.ops.lowering import current_lowering
from efficient_layers.ops.pack import unpack, unpacked_parts
from efficient_layers.ops.precision import float32_or_wider
from efficient_layers.ops.quantize import dequantize

_FEW_ROWS = 8
_BLOCK = 2**17  # weights: 512 KB in float32, half of a core's second cache
_LEAST_INPUTS = 8  # of a block: below, the loop costs more than it saves
Product = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]


def weight_only_dot(
    x: Float[Array, "m k"],
    codes: Int8[Array, "k n"] | UInt8[Array, "k bytes"],
    scale: Float[Array, "g c"],
    zero_point: Int8[Array, "g c"] | None = None,
    *,
    out: int,
    width: int = 8,
) -> Float[Array, "m n"]:
    """x dequantize(codes), a product of floats; codes of `width` < 8 bits are packed (`ops.pack`).

    g groups divide the inputs, c is `out` or 1. The result is float32 or wider.

    On a CPU a few rows spend their time on reading weights. The weights are then made floats a
    block of inputs at a time, so that the copies stay in cache: with one row and twelve layers of
    768 x 3072 in turn, 0.46 ms a layer (int4: 0.40) where the plain form takes 2.8 and float32
    weights 0.38 (2 cores).
    """
    wide = float32_or_wider(x.dtype)

    def product(x: jax.Array, codes: jax.Array, zero_point: jax.Array | None) -> jax.Array:
        w = codes.astype(x.dtype)
        w = w if zero_point is None else w - zero_point.astype(x.dtype)
        return lax.dot(x, w, preferred_element_type=wide)

    if _in_blocks(x, codes, scale, width):
        return _blocks(product, x, codes, scale, zero_point, out, width).astype(wide)
    codes = codes if width == 8 else unpack(codes, width, out)
    if scale.shape[0] == 1:
        return product(x, codes, zero_point) * scale.astype(wide)
    w = dequantize(codes, scale.astype(wide), zero_point)
    return lax.dot(x, w.astype(x.dtype), preferred_element_type=wide)


def int8_dot(
    x: Int8[Array, "m k"],
    x_zero: Int8[Array, "_ 1"] | None,
    codes: Int8[Array, "k n"] | UInt8[Array, "k bytes"],
    scale: Float[Array, "g c"],
    zero_point: Int8[Array, "g c"] | None = None,
    *,
    out: int,
    width: int = 8,
) -> Float[Array, "m n"]:
    """(x - x_zero) dequantize(codes) by products of int8: exact integers, then the scales.

    As `weight_only_dot`, with the codes of x in place of x; the scale of x is left to the caller.
    With groups of inputs, a product a group.
    """

    def product(x: jax.Array, codes: jax.Array, zero_point: jax.Array | None) -> jax.Array:
        return int_dot(x, codes, x_zero=x_zero, w_zero=zero_point).astype(scale.dtype)

    if width < 8 and _in_blocks(x, codes, scale, width):
        return _blocks(product, x, codes, scale, zero_point, out, width)
    codes = codes if width == 8 else unpack(codes, width, out)
    groups, part = scale.shape[0], x.shape[1] // scale.shape[0]
    if groups == 1:
        return product(x, codes, zero_point) * scale
    total = jnp.zeros((x.shape[0], out), scale.dtype)
    for g in range(groups):
        chosen = slice(g * part, (g + 1) * part)
        zero = None if zero_point is None else zero_point[g : g + 1]
        total = total + product(x[:, chosen], codes[chosen], zero) * scale[g]
    return total


def _in_blocks(x: jax.Array, codes: jax.Array, scale: jax.Array, width: int) -> bool:
    rows = x.shape[0]
    few = current_lowering() == "cpu" and isinstance(rows, int) and 0 < rows <= _FEW_ROWS
    return few and _LEAST_INPUTS <= _block(codes, scale, width) < codes.shape[0]


def _block(codes: jax.Array, scale: jax.Array, width: int) -> int:
    """Inputs in a block: the most that divide a group and keep the block small."""
    part = codes.shape[0] // scale.shape[0]
    most = max(1, _BLOCK * width // 8 // codes.shape[1])
    return max(size for size in range(1, min(part, most) + 1) if part % size == 0)


def _blocks(
    product: Product,
    x: jax.Array,
    codes: jax.Array,
    scale: jax.Array,
    zero_point: jax.Array | None,
    out: int,
    width: int,
) -> jax.Array:
    """The sum over blocks of inputs; a byte's codes are multiplied apart, then interleaved."""
    rows, (inputs, columns), each = x.shape[0], codes.shape, 8 // width
    size = _block(codes, scale, width)
    count = inputs // size

    def by_part(values: jax.Array) -> jax.Array:
        """(g, c) -> (blocks, each, 1, columns or 1)."""
        wide = jnp.broadcast_to(values, (values.shape[0], out))
        wide = jnp.pad(wide, ((0, 0), (0, columns * each - out)))
        parts = wide.reshape(-1, 1, columns, each).transpose(0, 3, 1, 2)
        return jnp.repeat(parts, count // values.shape[0], 0)

    def step(total: jax.Array, block: tuple) -> tuple[jax.Array, None]:
        x, codes, scale, zero = block
        parts = [codes] if width == 8 else unpacked_parts(codes, width)
        zeros = [None] * each if zero is None else list(zero)
        done = [product(x, part, zero) for part, zero in zip(parts, zeros, strict=True)]
        return total + jnp.stack(done) * scale, None

    wide = float32_or_wider(scale.dtype)
    blocks = (
        x.reshape(rows, count, size).transpose(1, 0, 2),
        codes.reshape(count, size, columns),
        by_part(scale.astype(wide)),
        None if zero_point is None else by_part(zero_point),
    )
    total, _ = lax.scan(step, jnp.zeros((each, rows, columns), wide), blocks)
    return total.transpose(1, 2, 0).reshape(rows, -1)[:, :out]
