# SPDX-License-Identifier: Apache-2.0
"""Attention to the neighbourhood: each query sees the keys nearest to it."""

from typing import Unpack

from efficient_layers.layers.attention import Attention, Options


class SlidingWindowAttention(Attention):
    """Attention in which query i sees key j where |i - j| < window.

    With `causal` those are the last `window` positions, the own one among them (Mistral's count);
    without, window - 1 on either side. Depth widens the view: after l layers it reaches
    l (window - 1) positions. The other settings are those of `MultiHeadAttention`;
    `num_kv_heads` is `GroupedQueryAttention`'s.

    kernels = in_features * head_dim * 2 * (num_heads + num_kv_heads)
    biases = (head_dim * (num_heads + 2 * num_kv_heads) + in_features) * use_bias
    params = kernels + biases + 2 * head_dim * qk_norm
    MACs = positions * (kernels + 2 * n * num_heads * head_dim)

    So the reference lowering counts it, which hides scores after computing them. What is needed is
    at most 2 n min(n, window) num_heads head_dim of the second term, and the form for CPUs skips
    the blocks outside the window.

    Differs from the papers: no dilation and no global tokens (see `BlockSparseAttention`).

    Reference: Beltagy et al., *Longformer* (arXiv 2004.05150), section 3.1; Jiang et al., *Mistral
    7B* (arXiv 2310.06825), section 2, for the causal window and the rolling cache.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.SlidingWindowAttention(8, 2, window=3, causal=True, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 5, 8))).shape
    (2, 5, 8)

    Raises:
      ValueError: a window below 1; and as `MultiHeadAttention`.
      TypeError: as `MultiHeadAttention`.
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        window: int,
        num_kv_heads: int | None = None,
        **options: Unpack[Options],
    ):
        if window < 1:
            raise ValueError(f"SlidingWindowAttention expects a window from 1 on. Got {window}.")
        super().__init__(in_features, num_heads, num_kv_heads=num_kv_heads, **options)
        self.window = window
