# SPDX-License-Identifier: Apache-2.0
"""Affine quantisation of arrays: value = scale (code - zero_point), codes of 2 to 8 bits.

A scale has the rank of the array; along each axis it has one number, one an element, or one a
group of equally many neighbours. The zero point has the scale's shape, None where it is 0.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int8

from efficient_layers.ops.precision import float32_or_wider


def code_range(bits: int, *, symmetric: bool = True) -> tuple[int, int]:
    """The least and the largest code: (-127, 127) for 8 bits, (-128, 127) where not symmetric.

    Raises:
      ValueError: bits outside 2 ... 8.
    """
    if bits not in range(2, 9):
        raise ValueError(f"Affine quantisation expects bits from 2 to 8. Got {bits}.")
    top = 2 ** (bits - 1) - 1
    return (-top if symmetric else -top - 1), top


def value_range(
    x: Float[Array, "..."], shape: tuple[int, ...]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The least and the largest value of `x` in each of the parts that a scale of `shape` has.

    Raises:
      ValueError: `shape` has another rank, or does not divide that of `x`.
    """
    _check_parts(x.shape, shape)
    split = [
        n for size, parts in zip(x.shape, shape, strict=True) for n in (parts, _of(size, parts))
    ]
    inner = tuple(range(1, 2 * x.ndim, 2))
    x = x.reshape(split)
    return x.min(inner, initial=jnp.inf), x.max(inner, initial=-jnp.inf)


def scale_and_zero_point(
    low: Float[Array, "..."], high: Float[Array, "..."], *, bits: int, symmetric: bool = True
) -> tuple[Float[Array, "..."], Int8[Array, "..."] | None]:
    """Scale and zero point for values from `low` to `high`; 0 is always among the exact ones.

    Symmetric: scale = max(-low, high) / (2^(bits-1) - 1), no zero point. Otherwise scale =
    (high - low) / (2^bits - 1), zero point = round(-2^(bits-1) - low / scale), for a range widened
    to hold 0. A range of nothing but 0 has scale 1.

    Reference: Jacob et al., *Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference* (arXiv 1712.05877), sections 2.1 and 3.1.
    """
    least, most = code_range(bits, symmetric=symmetric)
    if symmetric:
        return _or_one(_divided(jnp.maximum(-low, high), most)), None
    low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    scale = _or_one(_divided(high - low, most - least))
    return scale, jnp.clip(jnp.round(least - low / scale), least, most).astype(jnp.int8)


def _divided(x: jax.Array, number: int) -> jax.Array:
    """x / number, to the last bit: XLA multiplies by the reciprocal of a number that it can see."""
    return x / lax.optimization_barrier(jnp.full_like(x, number))


def _or_one(scale: jax.Array) -> jax.Array:
    """1 for scales so small that a division by them would overflow."""
    return jnp.where(scale < jnp.sqrt(jnp.finfo(scale.dtype).tiny), jnp.ones_like(scale), scale)


def quantize(
    x: Float[Array, "..."],
    scale: Float[Array, "..."],
    zero_point: Int8[Array, "..."] | None = None,
    *,
    bits: int = 8,
    least: int | None = None,
) -> Int8[Array, "..."]:
    """code = clip(round(x / scale) + zero_point), halves to even, in int8 whatever the bits.

    `least` is the least code; by default that of symmetric codes where there is no zero point. XLA
    divides by a scale of a single number through its reciprocal, so that a value within 1e-7 of a
    tie may round to either side.

    Raises:
      TypeError: x holds integers.
    """
    return _rounded(x, scale, zero_point, bits, least)[0].astype(jnp.int8)


def dequantize(
    codes: Int8[Array, "..."],
    scale: Float[Array, "..."],
    zero_point: Int8[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """scale (code - zero_point), in the scale's dtype."""
    values = codes.astype(scale.dtype)
    if zero_point is not None:
        values = values - spread(zero_point, codes.shape).astype(scale.dtype)
    return values * spread(scale, codes.shape)


def fake_quantize(
    x: Float[Array, "..."],
    scale: Float[Array, "..."],
    zero_point: Int8[Array, "..."] | None = None,
    *,
    bits: int = 8,
    least: int | None = None,
) -> Float[Array, "..."]:
    """`dequantize(quantize(x))` in floating point, with the straight-through gradient.

    dy/dx is 1 where round(x / scale) + zero_point is a code, 0 where it was clipped; scale and
    zero point carry no gradient (torch's `fake_quantize_per_tensor_affine`). Made of ordinary
    operations, so forward mode and second derivatives (which are 0) exist.

    Reference: Bengio et al., *Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation* (arXiv 1308.3432); Jacob et al. (arXiv 1712.05877), section 3.
    """
    scale = lax.stop_gradient(scale)
    codes, inside = _rounded(x, scale, zero_point, bits, least)
    if zero_point is not None:
        codes = codes - spread(zero_point, x.shape).astype(codes.dtype)
    value = (codes * spread(scale, x.shape).astype(codes.dtype)).astype(x.dtype)
    return straight_through(value, jnp.where(inside, x, jnp.zeros_like(x)))


def straight_through(
    value: Float[Array, "..."], passed: Float[Array, "..."]
) -> Float[Array, "..."]:
    """`value`, to the bit, with the derivative of `passed`."""
    return lax.stop_gradient(value) + (passed - lax.stop_gradient(passed))


def spread(scale: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`scale` repeated over groups to `shape`; where broadcasting will do, left as it is."""
    _check_parts(shape, scale.shape)
    if all(s in (1, n) for s, n in zip(scale.shape, shape, strict=True)):
        return scale
    groups = [1 if s == 1 else _of(n, s) for s, n in zip(scale.shape, shape, strict=True)]
    wide = [n for pair in zip(scale.shape, groups, strict=True) for n in pair]
    pairs = [n for s in scale.shape for n in (s, 1)]
    sizes = [s * g for s, g in zip(scale.shape, groups, strict=True)]
    return jnp.broadcast_to(scale.reshape(pairs), wide).reshape(sizes)


def _rounded(x, scale, zero_point, bits, least):
    """Codes as floating-point numbers in float32 or wider, and where they were not clipped."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"Quantisation expects floating-point values. Got {x.dtype}.")
    lowest, most = code_range(bits, symmetric=zero_point is None)
    lowest = lowest if least is None else least
    x = lax.stop_gradient(x)
    wide = x.astype(float32_or_wider(x.dtype))
    codes = jnp.round(wide / spread(scale, x.shape).astype(wide.dtype))
    if zero_point is not None:
        codes = codes + spread(zero_point, x.shape).astype(wide.dtype)
    return jnp.clip(codes, lowest, most), (codes >= lowest) & (codes <= most)


def _of(size: int, parts: int) -> int:
    return size // parts if parts else 0


def _check_parts(shape: tuple[int, ...], parts: tuple[int, ...]) -> None:
    fits = len(shape) == len(parts) and all(
        n == p or (p > 0 and n % p == 0) for n, p in zip(shape, parts, strict=True)
    )
    if not fits:
        raise ValueError(
            "A scale expects, along each axis, 1 number, one an element or one a group that "
            f"divides it. Got a scale of {parts} for an array of {shape}."
        )
