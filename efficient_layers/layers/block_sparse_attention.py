# SPDX-License-Identifier: Apache-2.0
"""Attention of linear cost: global, neighbouring and random blocks of keys."""

from typing import Any, NoReturn, Unpack

import jax

from efficient_layers.layers.attention import Attention, Options
from efficient_layers.ops.block_sparse import BlockPattern, block_sparse_attention


class BlockSparseAttention(Attention):
    """Attention in which a block of queries sees a fixed number of blocks of keys (BigBird).

    Of `pattern`: its `first` blocks are global (every query sees them, they see every key), then
    the `window` blocks around the own one, then `random` ones, drawn once from `seed`. Blocks are
    gathered whole, and no array has n x n numbers: time and memory are linear in n. With `causal`
    only keys up to the query count, and random blocks come from the past. Masks hide keys, (*b, n).
    The other settings are those of `MultiHeadAttention`.

    kernels = in_features * head_dim * 2 * (num_heads + num_kv_heads)
    biases = (head_dim * (num_heads + 2 * num_kv_heads) + in_features) * use_bias
    params = kernels + biases + 2 * head_dim * qk_norm
    top = min(n, first * block)
    keys = top * (top if causal else n) + (n - top) * width * block
    MACs = positions * kernels + positions // n * 2 * keys * num_heads * head_dim

    width = first + window + random blocks (with `causal`, (window + 1) / 2 for the window).

    Differs from the paper: one pattern for all heads; the global blocks are the first ones (its
    code takes the first and the last); no extra global tokens (its "ETC" form); the causal form
    is ours.

    Reference: Zaheer et al., *Big Bird: Transformers for Longer Sequences* (arXiv 2007.14062),
    section 2 and appendix D.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> pattern = el.layers.BlockPattern(block=2, first=1, random=1)
    >>> layer = el.layers.BlockSparseAttention(8, 2, pattern=pattern, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 12, 8))).shape
    (2, 12, 8)

    Raises:
      ValueError: tokens that are no multiple of the block; segments, a context, a mask of queries
        or a `RelativePosition`, for which there is no block-sparse form; and as
        `MultiHeadAttention`.
      TypeError: as `MultiHeadAttention`.
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        pattern: BlockPattern = BlockPattern(),  # noqa: B008, frozen
        num_kv_heads: int | None = None,
        **options: Unpack[Options],
    ):
        super().__init__(in_features, num_heads, num_kv_heads=num_kv_heads, **options)
        if self.relative_bias is not None:
            raise ValueError(
                f"BlockSparseAttention expects RoPE(), ALiBi() or None. Got {self.position}."
            )
        self.pattern = pattern
        self.block, self.first = pattern.block, pattern.first
        self.width = pattern.width(causal=self.causal)

    def init_cache(self, *args: Any, **kwargs: Any) -> NoReturn:
        """There is none: raises ValueError."""
        raise ValueError(
            "BlockSparseAttention has no decoding with a cache. Use SlidingWindowAttention."
        )

    def _attend(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        mask: jax.Array | None,
        segments: Any,
        **dropout: Any,
    ) -> jax.Array:
        if segments is not None or key.shape[-3] != query.shape[-3]:
            raise ValueError(
                "BlockSparseAttention expects neither segments nor a context of another length. "
                f"Got queries {query.shape}, keys {key.shape}, "
                f"{'no segments' if segments is None else 'segments'}."
            )
        if mask is not None and mask.shape[-3:-1] != (1, 1):
            raise ValueError(
                "BlockSparseAttention expects a mask of keys, (*batch, tokens). Got one with axes "
                f"(*batch, heads, queries, keys) = {mask.shape}."
            )
        return block_sparse_attention(
            query,
            key,
            value,
            self.pattern,
            causal=self.causal,
            mask=None if mask is None else mask[..., 0, 0, :],
            slopes=self._slopes(),
            **dropout,
        )
