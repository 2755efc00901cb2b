# SPDX-License-Identifier: Apache-2.0
"""Linear attention whose memory is corrected: the delta rule, one step of regression a position.

S_i = S_{i-1} + w_i k_i (v_i - S_{i-1}' k_i)', y_i = S_i' q_i, with a rate w in [0, 1] and keys of
length 1. Letters: m features of keys, d of values; `*b` includes heads.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.chunks import chunk_for, from_chunks, to_chunks, wide_einsum
from efficient_layers.ops.precision import float32_or_wider


def delta_rule(
    q: Float[Array, "*b n m"],
    k: Float[Array, "*b n m"],
    v: Float[Array, "*b n d"],
    rate: Float[Array, "*b n"],
    state: Float[Array, "*b m d"] | None = None,
    *,
    chunk: int = 64,
) -> tuple[Float[Array, "*b n d"], Float[Array, "*b m d"]]:
    """The outputs and the state after n, in chunks of `chunk` (a power of two) positions.

    Within a chunk the corrections u solve (1 + L) u = w (v - k S), L the rates times the products
    of keys below the diagonal (the WY form): all of a chunk in products. Only u and S pass from
    chunk to chunk; products with queries stand outside of that loop.

    Reference: Yang et al. (arXiv 2406.06484), section 3.2, equations 8 to 11.
    """
    n, size = q.shape[-2], chunk_for(q.shape[-2], chunk)
    wide = float32_or_wider(q.dtype)
    q, k, v = (to_chunks(x, size) for x in (q, k, v))
    rate = to_chunks(rate.astype(wide)[..., None], size)
    among = jnp.tril(rate * wide_einsum("...im,...jm->...ij", k, k), -1)
    solve = unit_lower_inverse(among)
    from_state = jnp.matmul(solve, rate * k.astype(wide)).astype(k.dtype)
    from_values = jnp.matmul(solve, rate * v.astype(wide))
    before, u, after = _corrections(from_state, from_values, k, state)
    seen = jnp.tril(wide_einsum("...im,...jm->...ij", q, k)).astype(v.dtype)
    y = wide_einsum("...ij,...jd->...id", seen, u)
    y += wide_einsum("...im,...md->...id", q, before.astype(q.dtype))
    return from_chunks(y, n).astype(v.dtype), after


def _corrections(
    from_state: jax.Array, from_values: jax.Array, k: jax.Array, state: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Chunk by chunk: the state before each, its corrections u = from_values - from_state S; S."""
    axis = k.ndim - 3
    wide = from_values.dtype
    if state is None:
        state = jnp.zeros((*k.shape[:axis], k.shape[-1], from_values.shape[-1]), wide)

    def step(state: jax.Array, now: tuple) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        from_state, from_values, k = now
        u = from_values - wide_einsum("...im,...md->...id", from_state, state.astype(k.dtype))
        u = u.astype(k.dtype)
        return state + wide_einsum("...im,...id->...md", k, u), (state, u)

    inputs = tuple(jnp.moveaxis(x, axis, 0) for x in (from_state, from_values, k))
    last, (before, u) = lax.scan(step, state, inputs)
    return jnp.moveaxis(before, 0, axis), jnp.moveaxis(u, 0, axis), last


def unit_lower_inverse(a: Float[Array, "*b l l"]) -> Float[Array, "*b l l"]:
    """(1 + a)^-1 for `a` below the diagonal, l a power of two: by halves, in products.

    [[p, 0], [r, s]]^-1 = [[p^-1, 0], [-s^-1 r p^-1, s^-1]]. As stable as substitution; the powers
    of `a` (a nilpotent series) are not: for equal keys they reach binomials of l.
    """
    half = a.shape[-1] // 2
    if half == 0:
        return jnp.ones_like(a)
    both = jnp.stack([a[..., :half, :half], a[..., half:, half:]], -3)
    both = unit_lower_inverse(both)
    first, second = both[..., 0, :, :], both[..., 1, :, :]
    below = -jnp.matmul(jnp.matmul(second, a[..., half:, :half]), first)
    top = jnp.concatenate([first, jnp.zeros_like(first)], -1)
    return jnp.concatenate([top, jnp.concatenate([below, second], -1)], -2)


def delta_rule_step(
    q: Float[Array, "*b m"],
    k: Float[Array, "*b m"],
    v: Float[Array, "*b d"],
    rate: Float[Array, "*b"],
    state: Float[Array, "*b m d"],
) -> tuple[Float[Array, "*b d"], Float[Array, "*b m d"]]:
    """One more position: what is remembered under its key moves towards its value."""
    wide = state.dtype
    query, key, value = (x.astype(wide)[..., None] for x in (q, k, v))
    wrong = value - (state * key).sum(-2)[..., None]
    update = rate.astype(wide)[..., None, None] * key * wrong.swapaxes(-1, -2)
    state = state + update
    return (query * state).sum(-2).astype(v.dtype), state


def recurrent_delta_rule(
    q: Float[Array, "*b n m"],
    k: Float[Array, "*b n m"],
    v: Float[Array, "*b n d"],
    rate: Float[Array, "*b n"],
) -> Float[Array, "*b n d"]:
    """Position by position: the definition, and what decoding computes."""

    def step(
        state: jax.Array, now: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        y, state = delta_rule_step(*now, state)
        return state, y

    start = jnp.zeros((*q.shape[:-2], q.shape[-1], v.shape[-1]), float32_or_wider(q.dtype))
    q, k, v = (jnp.moveaxis(x, -2, 0) for x in (q, k, v))
    inputs = (q, k, v, jnp.moveaxis(rate, -1, 0))
    return jnp.moveaxis(lax.scan(step, start, inputs)[1], 0, -2)


def quadratic_delta_rule(
    q: Float[Array, "*b n m"],
    k: Float[Array, "*b n m"],
    v: Float[Array, "*b n d"],
    rate: Float[Array, "*b n"],
) -> Float[Array, "*b n d"]:
    """As attention with n x n weights: tril(q k') (1 + tril(w k k', -1))^-1 w, times v."""
    among = jnp.tril(rate[..., None] * jnp.matmul(k, k.swapaxes(-1, -2)), -1)
    one = jnp.eye(k.shape[-2], dtype=among.dtype)
    solve = jnp.linalg.solve(one + among, rate[..., None] * v)
    return jnp.matmul(jnp.tril(jnp.matmul(q, k.swapaxes(-1, -2))), solve)
