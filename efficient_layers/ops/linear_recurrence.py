# SPDX-License-Identifier: Apache-2.0
"""h_t = a_t h_{t-1} + b_t along a sequence, elementwise; real, or complex as two parts.

|a| <= 1 is assumed: only products of values of `a` are formed, no quotients and no logarithms, so
nothing overflows and what is forgotten is gone.

On 2 CPU cores, 4,096 positions of 512 features, ms forward / with gradients: step by step 3.7 / 10
(complex 27 / 41), `lax.associative_scan` 17 / 71 (94 / 196), chunks of sqrt(n) positions 12 / 80
(46 / 236). A step is one fused loop there; elsewhere log2(n) levels win.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.lowering import current_lowering


class Complex(NamedTuple):
    """Two real arrays: what TPUs compute, and XLA's CPU backend computes fast."""

    real: Float[Array, "..."]
    imag: Float[Array, "..."]


Number = jax.Array | Complex


def linear_recurrence(a: Number, b: Number, start: Number) -> Number:
    """All h (*b, n, d) for a and b (*b, n, d) and the h before the first, `start` (*b, d)."""
    if current_lowering() == "cpu":
        return sequential_recurrence(a, b, start)
    return associative_recurrence(a, b, start)


def sequential_recurrence(a: Number, b: Number, start: Number) -> Number:
    """Position by position: the definition."""

    def step(state: Number, now: tuple[Number, Number]) -> tuple[Number, Number]:
        state = plus(times(now[0], state), now[1])
        return state, state

    inputs = jax.tree.map(lambda x: jnp.moveaxis(x, -2, 0), (a, b))
    _, h = lax.scan(step, start, inputs)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -2), h)


def associative_recurrence(a: Number, b: Number, start: Number) -> Number:
    """In log2(n) levels: pairs (product of a, h from nothing) of neighbouring spans are joined."""

    def join(first: tuple[Number, Number], second: tuple[Number, Number]) -> tuple[Number, Number]:
        return times(second[0], first[0]), plus(times(second[0], first[1]), second[1])

    axis = jax.tree.leaves(b)[0].ndim - 2
    products, within = lax.associative_scan(join, (a, b), axis=axis)
    before = jax.tree.map(lambda p, s: jnp.broadcast_to(s[..., None, :], p.shape), products, start)
    return plus(within, times(products, before))


def times(a: Number, b: Number) -> Number:
    """a b, elementwise."""
    if isinstance(a, Complex) and isinstance(b, Complex):
        real = a.real * b.real - a.imag * b.imag
        return Complex(real, a.real * b.imag + a.imag * b.real)
    assert not isinstance(a, Complex)
    assert not isinstance(b, Complex)
    return a * b


def plus(a: Number, b: Number) -> Number:
    """a + b, elementwise."""
    return jax.tree.map(jnp.add, a, b)
