# SPDX-License-Identifier: Apache-2.0
"""Linear attention that forgets: a decay for every position and feature of the keys.

S_i = diag(a_i) S_{i-1} + k_i v_i', y_i = q_i S_i, with a = exp(log_decay) in (0, 1]. Letters: m
features of keys, d of values; `*b` includes heads.

Everything is computed from differences of cumulated logarithms b that are never positive, so
nothing overflows however strong the decay; a quotient of products of decays would.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.chunks import carry, chunk_for, from_chunks, to_chunks, wide_einsum
from efficient_layers.ops.precision import float32_or_wider


def gated_linear_attention(
    q: Float[Array, "*b n m"],
    k: Float[Array, "*b n m"],
    v: Float[Array, "*b n d"],
    log_decay: Float[Array, "*b n m"],
    state: Float[Array, "*b m d"] | None = None,
    *,
    chunk: int = 64,
) -> tuple[Float[Array, "*b n d"], Float[Array, "*b m d"]]:
    """The outputs and the state after n, in chunks of `chunk` (a power of two) positions."""
    n, size = q.shape[-2], chunk_for(q.shape[-2], chunk)
    wide = float32_or_wider(q.dtype)
    q, k, v, log_decay = (to_chunks(x, size) for x in (q, k, v, log_decay.astype(wide)))
    b = jnp.cumsum(log_decay, -2)
    last = b[..., -1:, :]
    late_k = (k.astype(wide) * jnp.exp(last - b)).astype(k.dtype)
    added = wide_einsum("...jm,...jd->...md", late_k, v)
    before, after = carry(added, state, jnp.exp(last[..., 0, :]))
    early_q = (q.astype(wide) * jnp.exp(b)).astype(q.dtype)
    y = wide_einsum("...im,...md->...id", early_q, before.astype(q.dtype))
    y += _within(q.astype(wide), k.astype(wide), v, b)
    return from_chunks(y, n).astype(v.dtype), after


def _within(
    q: Float[Array, "*b c l m"],
    k: Float[Array, "*b c l m"],
    v: Float[Array, "*b c l d"],
    b: Float[Array, "*b c l m"],
) -> Float[Array, "*b c l d"]:
    """sum_{j <= i} (q_i k_j exp(b_i - b_j)) v_j in every chunk, by halves.

    Queries of a second half see keys of the first through the boundary s between them: both
    exp(b_i - b_s) and exp(b_s - b_j) are at most 1, and their outer product is a product of
    matrices. b_s cancels, so no gradient flows through it. Then the halves are chunks themselves,
    down to i = j, where no decay is left. Half of the products of a masked square, and no mask.

    Halves are split and joined at every level: sums of slices of the whole chunk, one a level, took
    XLA's CPU backend minutes to compile in the gradient of a layer under vmap (docs/LOG.md).
    """
    if q.shape[-2] == 1:
        return (q * k).sum(-1, keepdims=True) * v.astype(q.dtype)
    halves = [jnp.split(x, 2, -2) for x in (q, k, v, b)]
    (_, q1), (k0, _), (v0, _), (b0, b1) = halves
    boundary = lax.stop_gradient(b0[..., -1:, :])
    late = (q1 * jnp.exp(b1 - boundary)).astype(v.dtype)
    early = (k0 * jnp.exp(boundary - b0)).astype(v.dtype)
    weights = wide_einsum("...im,...jm->...ij", late, early)
    part = wide_einsum("...ij,...jd->...id", weights.astype(v.dtype), v0)
    y = _within(*map(_joined, halves))
    y0, y1 = jnp.unstack(y.reshape(*part.shape[:-2], 2, *part.shape[-2:]), axis=-3)
    return jnp.concatenate([y0, y1 + part], -2)


def _joined(halves: list[jax.Array]) -> jax.Array:
    """[*b, c, l, d] twice -> [*b, 2 c, l, d], alternating."""
    *batch, count, size, d = halves[0].shape
    return jnp.stack(halves, -3).reshape(*batch, 2 * count, size, d)


def gated_linear_attention_step(
    q: Float[Array, "*b m"],
    k: Float[Array, "*b m"],
    v: Float[Array, "*b d"],
    log_decay: Float[Array, "*b m"],
    state: Float[Array, "*b m d"],
) -> tuple[Float[Array, "*b d"], Float[Array, "*b m d"]]:
    """One more position: forgets, adds, asks."""
    wide = state.dtype
    query, key, value = q.astype(wide), k.astype(wide), v.astype(wide)
    state = jnp.exp(log_decay.astype(wide))[..., None] * state
    state += key[..., None] * value[..., None, :]
    return (query[..., None] * state).sum(-2).astype(v.dtype), state


def recurrent_gated_linear_attention(
    q: Float[Array, "*b n m"],
    k: Float[Array, "*b n m"],
    v: Float[Array, "*b n d"],
    log_decay: Float[Array, "*b n m"],
) -> Float[Array, "*b n d"]:
    """Position by position: what decoding computes."""
    shape = (*q.shape[:-2], q.shape[-1], v.shape[-1])

    def step(
        state: jax.Array, now: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        y, state = gated_linear_attention_step(*now, state)
        return state, y

    q, k, v, log_decay = (jnp.moveaxis(x, -2, 0) for x in (q, k, v, log_decay))
    start = jnp.zeros(shape, float32_or_wider(q.dtype))
    return jnp.moveaxis(lax.scan(step, start, (q, k, v, log_decay))[1], 0, -2)


def quadratic_gated_linear_attention(
    q: Float[Array, "*b n m"],
    k: Float[Array, "*b n m"],
    v: Float[Array, "*b n d"],
    log_decay: Float[Array, "*b n m"],
) -> Float[Array, "*b n d"]:
    """The definition, with the n x n x m products of decays."""
    b = jnp.cumsum(log_decay, -2)
    n = b.shape[-2]
    past = jnp.arange(n)[:, None] >= jnp.arange(n)
    between = b[..., :, None, :] - b[..., None, :, :]
    kept = jnp.where(past[..., None], jnp.exp(jnp.minimum(between, 0)), 0)
    weights = (q[..., :, None, :] * k[..., None, :, :] * kept).sum(-1)
    return (weights[..., None] * v[..., None, :, :]).sum(-2)
