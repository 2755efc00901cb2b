# SPDX-License-Identifier: Apache-2.0
"""Attention whose weights are products of features of queries and keys: no n x n matrix.

y_i = sum_j (q_i . k_j) v_j / sum_j (q_i . k_j) with q, k >= 0 (features already taken), j over all
positions or, causal, over those up to i. Letters: m features, d of values; `*b` includes heads.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.chunks import carry, chunk_for, from_chunks, to_chunks, wide_einsum
from efficient_layers.ops.precision import float32_or_wider


class Sums(NamedTuple):
    """What causal linear attention remembers: sum_j k_j v_j' and sum_j k_j."""

    values: Float[Array, "*b m d"]
    weights: Float[Array, "*b m"]


def linear_attention(
    q: Float[Array, "*b n m"], k: Float[Array, "*b n m"], v: Float[Array, "*b n d"]
) -> Float[Array, "*b n d"]:
    """Every query sees every key: two products, (k' v) and q times that."""
    values = wide_einsum("...nm,...nd->...md", k, v)
    weights = k.astype(values.dtype).sum(-2)
    top = wide_einsum("...nm,...md->...nd", q, values.astype(q.dtype))
    bottom = (q.astype(values.dtype) * weights[..., None, :]).sum(-1, keepdims=True)
    return _ratio(top, bottom).astype(v.dtype)


def causal_linear_attention(
    q: Float[Array, "*b n m"],
    k: Float[Array, "*b n m"],
    v: Float[Array, "*b n d"],
    sums: Sums | None = None,
    *,
    chunk: int = 64,
) -> tuple[Float[Array, "*b n d"], Sums]:
    """Query i sees keys up to i, and what `sums` remembers; also returns the sums after n.

    Products within chunks, masked, and with the sums before each chunk.
    """
    n, size = q.shape[-2], chunk_for(q.shape[-2], chunk)
    wide = float32_or_wider(q.dtype)
    q, k, v = (to_chunks(x, size) for x in (q, k, v))  # *b c l .
    within = jnp.tril(wide_einsum("...im,...jm->...ij", q, k))
    added = wide_einsum("...jm,...jd->...md", k, v)
    heavier = k.astype(wide).sum(-2)[..., None]
    start = (None, None) if sums is None else (sums.values, sums.weights[..., None])
    values, last = carry(added, start[0])
    weights, heaviest = carry(heavier, start[1])
    top = wide_einsum("...ij,...jd->...id", within.astype(v.dtype), v)
    top += wide_einsum("...im,...md->...id", q, values.astype(q.dtype))
    bottom = within.sum(-1) + (q.astype(wide) * weights[..., 0][..., None, :]).sum(-1)
    y = _ratio(top, bottom[..., None]).astype(v.dtype)
    return from_chunks(y, n), Sums(last, heaviest[..., 0])


def linear_attention_step(
    q: Float[Array, "*b m"], k: Float[Array, "*b m"], v: Float[Array, "*b d"], sums: Sums
) -> tuple[Float[Array, "*b d"], Sums]:
    """One more position: adds it to the sums and asks them."""
    wide = sums.values.dtype
    q, key, value = q.astype(wide), k.astype(wide), v.astype(wide)
    sums = Sums(sums.values + key[..., None] * value[..., None, :], sums.weights + key)
    top = (q[..., None] * sums.values).sum(-2)
    bottom = (q * sums.weights).sum(-1, keepdims=True)
    return _ratio(top, bottom).astype(v.dtype), sums


def recurrent_linear_attention(
    q: Float[Array, "*b n m"], k: Float[Array, "*b n m"], v: Float[Array, "*b n d"]
) -> Float[Array, "*b n d"]:
    """The causal form position by position: what decoding computes."""
    wide = float32_or_wider(q.dtype)
    shape = (*q.shape[:-2], q.shape[-1])
    empty = Sums(jnp.zeros((*shape, v.shape[-1]), wide), jnp.zeros(shape, wide))

    def step(sums: Sums, now: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Sums, jax.Array]:
        y, sums = linear_attention_step(*now, sums)
        return sums, y

    inputs = (jnp.moveaxis(q, -2, 0), jnp.moveaxis(k, -2, 0), jnp.moveaxis(v, -2, 0))
    return jnp.moveaxis(lax.scan(step, empty, inputs)[1], 0, -2)


def quadratic_linear_attention(
    q: Float[Array, "*b n m"],
    k: Float[Array, "*b n m"],
    v: Float[Array, "*b n d"],
    *,
    causal: bool = False,
) -> Float[Array, "*b n d"]:
    """The definition, with the n x n weights."""
    weights = wide_einsum("...im,...jm->...ij", q, k)
    weights = jnp.tril(weights) if causal else weights
    top = wide_einsum("...ij,...jd->...id", weights.astype(v.dtype), v)
    return _ratio(top, weights.sum(-1, keepdims=True)).astype(v.dtype)


def _ratio(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """top / bottom; 0, with gradient 0, where all weights underflowed (and in padding)."""
    there = bottom > jnp.finfo(bottom.dtype).tiny
    return jnp.where(there, top / jnp.where(there, bottom, 1), 0)
