# SPDX-License-Identifier: Apache-2.0
"""Cards of softmax attention: fewer heads of keys, fewer keys, positions, and decoding."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from efficient_layers import layers
from efficient_layers.evidence.cards.card import Card, Side

_TOKENS = 16  # that a side of the card of KVCache generates


class _Generation(nnx.Module):
    """The outputs of the next few tokens after x, each the input of the next.

    With a `dtype` from a cache of n tokens (zeros: they cost what others do), else by a full pass
    over the last n tokens for each.
    """

    def __init__(self, layer: Any, dtype: Any = None):
        self.layer = layer
        self.dtype = dtype

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "t b 1 d"]:
        if self.dtype is None:
            return lax.scan(self._anew, x, length=_TOKENS)[1]
        (batch, n, _), first = x.shape, x[:, -1:]
        cache = self.layer.init_cache(batch, n + _TOKENS, dtype=self.dtype)
        cache = dataclasses.replace(cache, length=jnp.asarray(n, jnp.int32))
        return lax.scan(self._step, (first, cache), length=_TOKENS)[1]

    def _anew(self, x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        y = self.layer(x)[:, -1:]
        return jnp.concatenate([x[:, 1:], y], 1), y

    def _step(self, carry: tuple, _: None) -> tuple[tuple, jax.Array]:
        y, cache = self.layer.decode(*carry)
        return (y, cache), y


def _multi_head(rngs: nnx.Rngs, features: int = 512, heads: int = 8, **options: Any) -> nnx.Module:
    return layers.MultiHeadAttention(features, heads, **options, rngs=rngs)


def _flax(rngs: nnx.Rngs) -> nnx.Module:
    return nnx.MultiHeadAttention(8, 512, decode=False, rngs=rngs)


def _grouped(rngs: nnx.Rngs, kv_heads: int) -> nnx.Module:
    return layers.GroupedQueryAttention(512, 8, num_kv_heads=kv_heads, rngs=rngs)


def _window(rngs: nnx.Rngs, window: int) -> nnx.Module:
    return layers.SlidingWindowAttention(512, 8, window=window, causal=True, rngs=rngs)


def _blocks(rngs: nnx.Rngs, block: int) -> nnx.Module:
    pattern = layers.BlockPattern(block=block)
    return layers.BlockSparseAttention(512, 8, pattern=pattern, rngs=rngs)


def _generation(rngs: nnx.Rngs, dtype: Any = None, kv_heads: int = 8) -> nnx.Module:
    layer = _multi_head(rngs, causal=True, num_kv_heads=kv_heads, position=layers.RoPE())
    return _Generation(layer, dtype)


_CAUSAL = Side("MultiHeadAttention, causal", partial(_multi_head, causal=True))
_FULL = Side("MultiHeadAttention", _multi_head)

CARDS = (
    Card(
        name="multi_head_attention",
        layers=("MultiHeadAttention",),
        pays="every softmax attention: no n x n array, any mask, positions, packing, a cache",
        x=(1, 1024, 512),
        baseline=Side("nnx.MultiHeadAttention", _flax),
        sides=(
            Side("8 heads", _multi_head),
            Side("causal", partial(_multi_head, causal=True)),
            Side(
                "causal, RoPE, qk_norm",
                partial(_multi_head, causal=True, qk_norm=True, position=layers.RoPE()),
            ),
        ),
    ),
    Card(
        name="grouped_query_attention",
        layers=("GroupedQueryAttention", "MultiQueryAttention"),
        pays="decoding: a cache of num_kv_heads / num_heads the size; little else",
        x=(1, 512, 512),
        baseline=_FULL,
        sides=(
            Side("2 of 8 heads", partial(_grouped, kv_heads=2)),
            Side(
                "MultiQueryAttention",
                lambda rngs: layers.MultiQueryAttention(512, 8, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="sliding_window_attention",
        layers=("SlidingWindowAttention",),
        pays="long sequences whose context is local: cost and cache by the window, not by n",
        x=(1, 2048, 512),
        baseline=_CAUSAL,
        sides=(
            Side("window 256", partial(_window, window=256)),
            Side("window 1024", partial(_window, window=1024)),
        ),
    ),
    Card(
        name="block_sparse_attention",
        layers=("BlockSparseAttention",),
        pays="long documents read in both directions: time and memory linear in n",
        x=(1, 2048, 512),
        baseline=_FULL,
        sides=(
            Side("blocks of 32", partial(_blocks, block=32)),
            Side("blocks of 64", partial(_blocks, block=64)),
        ),
    ),
    Card(
        name="positions",
        layers=("RelativeBias",),
        pays="order without a table of positions: RoPE by default, ALiBi for longer texts",
        x=(1, 512, 512),
        baseline=_FULL,
        sides=(
            Side("RoPE", partial(_multi_head, position=layers.RoPE())),
            Side("ALiBi", partial(_multi_head, position=layers.ALiBi())),
            Side("RelativePosition", partial(_multi_head, position=layers.RelativePosition())),
        ),
    ),
    Card(
        name="kv_cache",
        layers=("KVCache",),
        pays="generation: a step costs one token's projections and one pass over the cache",
        x=(1, 256, 512),
        baseline=Side("16 tokens, a full pass for each", _generation),
        sides=(
            Side("float32", partial(_generation, dtype=jnp.float32)),
            Side("bfloat16", partial(_generation, dtype=jnp.bfloat16)),
            Side("int8", partial(_generation, dtype=jnp.int8)),
            Side("int8, 2 of 8 heads", partial(_generation, dtype=jnp.int8, kv_heads=2)),
        ),
    ),
)
