# SPDX-License-Identifier: Apache-2.0
"""Generation with attention layers: new tokens against a cache of the earlier ones."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float, Int

from efficient_layers.layers.kv_cache import KVCache
from efficient_layers.ops.attention import dot_product_attention
from efficient_layers.ops.attention_terms import Fixed, Rule, seen
from efficient_layers.ops.cached_attention import cached_attention

_FEW = 16  # from here on the scores of all heads are worth computing block by block


def init_cache(
    layer: Any, batch: int | tuple[int, ...], max_length: int, dtype: Dtype | None, piece: int
) -> KVCache:
    """An empty cache of `layer`; see `Attention.init_cache`."""
    name, position = type(layer).__name__, layer.position
    _check_causal(layer)
    if max_length < 1 or piece < 1:
        raise ValueError(
            f"{name} expects max_length and piece of at least 1. Got {max_length} and {piece}."
        )
    limit = None if position is None else position.max_length
    if limit is not None and max_length > limit:
        raise ValueError(
            f"{name} expects max_length up to {limit}, that of {position}. Got {max_length}."
        )
    needed = max_length if layer.window is None else layer.window + piece - 1
    return KVCache.empty(
        (batch,) if isinstance(batch, int) else batch,
        heads=layer.num_kv_heads,
        slots=min(max_length, needed),
        features=layer.head_dim,
        dtype=dtype or layer.dtype or jnp.float32,
        rolling=needed < max_length,
    )


def decode(
    layer: Any, x: Float[Array, "*b n d"], cache: KVCache
) -> tuple[Float[Array, "*b n d"], KVCache]:
    """Outputs of n new tokens and the cache with them; see `Attention.decode`."""
    _check_causal(layer)
    n = x.shape[-2]
    most = cache.slots if layer.window is None else cache.slots - layer.window + 1
    if cache.rolling and n > most:
        raise ValueError(
            f"{type(layer).__name__} expects at most {most} tokens at once with a rolling cache of "
            f"{cache.slots} slots. Got {n}: make it with init_cache(..., piece={n})."
        )
    query_at = cache.length + jnp.arange(n, dtype=jnp.int32)
    query = layer._heads(x, layer.query, layer.query_norm, query_at)
    key = layer._heads(x, layer.key, layer.key_norm, query_at)
    cache = cache.append(key, layer._heads(x, layer.value, None, None, turn=False))
    y = _attend(layer, query, cache, query_at)
    y = jnp.where(cache.overflowed, jnp.asarray(jnp.nan, y.dtype), y)
    return layer._joined(y), cache


def _attend(
    layer: Any, query: jax.Array, cache: KVCache, query_at: Int[Array, " n"]
) -> Float[Array, "*b n h d"]:
    n, slots = len(query_at), cache.slots
    if n >= _FEW and not cache.rolling:
        key, value = cache.arrays(query.dtype)
        return dot_product_attention(
            query,
            key,
            value,
            causal=True,
            window=layer.window,
            slopes=layer._slopes(),
            bias=layer._bias(n, slots, query_at[0]),
            query_offset=query_at[0],
        )
    key_at = cache.positions
    left = None if layer.window is None else layer.window - 1
    filled = (key_at >= 0)[None, :]
    at = Fixed(mask=filled, query_position=query_at[:, None], key_position=key_at[None, :])
    visible: Any = seen(at, Rule(left, right=0))
    bias = _bias(layer, query_at, key_at)
    return cached_attention(query, cache.key, cache.value, cache.scales, visible, bias)


def _bias(
    layer: Any, query_at: Int[Array, " n"], key_at: Int[Array, " m"]
) -> Float[Array, "h n m"] | None:
    if layer.relative_bias is not None:
        return layer.relative_bias.between(query_at, key_at)
    slopes = layer._slopes()
    if slopes is None:
        return None
    distance = jnp.abs(query_at[:, None] - key_at[None, :]).astype(slopes.dtype)
    return -slopes[:, None, None] * distance[None]


def _check_causal(layer: Any) -> None:
    if not layer.causal:
        raise ValueError(
            f"{type(layer).__name__} expects causal=True to decode token by token. Got causal="
            "False: its first outputs depend on tokens that do not exist yet."
        )
