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
    y += _within(q, k, v, b)
    return from_chunks(y, n).astype(v.dtype), after


def _within(q: jax.Array, k: jax.Array, v: jax.Array, b: jax.Array) -> jax.Array:
    """sum_{j <= i} (q_i k_j exp(b_i - b_j)) v_j in every chunk, by halves.

    Queries of a second half see keys of the first through the boundary between them: exp(b_i - b_s)
    and exp(b_s - b_j) are both at most 1, and their outer product is a product of matrices. Then
    the same within each half, down to i = j, where no decay is left. Half of the products of a
    masked square, and no mask.
    """
    *batch, size, _ = q.shape
    wide = b.dtype
    q, k = q.astype(wide), k.astype(wide)
    y = (q * k).sum(-1, keepdims=True) * v.astype(wide)
    half = size // 2
    while half:
        late, early = _second(q, half), _first(k, half)
        boundary = _first(b, half)[..., -1:, :]
        late = late * jnp.exp(_second(b, half) - boundary)
        early = early * jnp.exp(boundary - _first(b, half))
        weights = wide_einsum("...im,...jm->...ij", late.astype(v.dtype), early.astype(v.dtype))
        part = wide_einsum("...ij,...jd->...id", weights.astype(v.dtype), _first(v, half))
        part = jnp.stack([jnp.zeros_like(part), part], -3)
        y += part.reshape(*batch, size, v.shape[-1])
        half //= 2
    return y


def _first(x: jax.Array, half: int) -> jax.Array:
    """First halves of blocks of 2 `half` positions."""
    return _halves(x, half)[..., 0, :, :]


def _second(x: jax.Array, half: int) -> jax.Array:
    return _halves(x, half)[..., 1, :, :]


def _halves(x: jax.Array, half: int) -> jax.Array:
    *batch, size, d = x.shape
    return x.reshape(*batch, size // (2 * half), 2, half, d)


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
