# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention, and the same with fewer heads of keys and values."""

from typing import Unpack

from efficient_layers.layers.attention import Attention, Options


class MultiHeadAttention(Attention):
    """y = concat_i(softmax(q_i k_i^T / sqrt(head_dim)) v_i) W_out + b, for heads i.

    q_i of x; k_i and v_i of `context`, or of x. The matrix of weights is never stored on CPU
    (`efficient_layers.ops.attention`), unless a mask or a learned bias of its size is given. A
    query that sees no key gets W_out 0 + b.

    Settings: `num_kv_heads` is `GroupedQueryAttention`'s; `head_dim` is in_features / num_heads by
    default; `causal` hides later keys; `position` is one of `RoPE()`, `ALiBi()`,
    `RelativePosition()`; `qk_norm` puts an `RMSNorm` over each head's queries and keys, before
    RoPE; `dropout_rate` is of the weights. `init_cache` and `decode` generate token by token.

    kernels = in_features * head_dim * 2 * (num_heads + num_kv_heads)
    biases = (head_dim * (num_heads + 2 * num_kv_heads) + in_features) * use_bias
    params = kernels + biases + 2 * head_dim * qk_norm
    MACs = positions * (kernels + 2 * n * num_heads * head_dim)

    `causal` and masks save none of these MACs in the reference lowering; the form for CPUs skips
    blocks that nobody sees. A `RelativePosition` adds buckets x num_heads parameters.

    Differs from `nnx.MultiHeadAttention`: kernels are matrices (in, heads x head_dim), not of
    three axes; there is no mask by `nnx.make_causal_mask` needed, and no cache inside.

    Reference: Vaswani et al., *Attention Is All You Need* (arXiv 1706.03762), section 3.2; qk_norm:
    Henry et al., *Query-Key Normalization for Transformers* (arXiv 2010.04245) and Dehghani et al.,
    *Scaling Vision Transformers to 22 Billion Parameters* (arXiv 2302.05442), section 2.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.MultiHeadAttention(8, 2, causal=True, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 8))).shape
    (2, 5, 8)

    Raises:
      ValueError: num_heads that do not divide in_features (without a head_dim), num_kv_heads that
        do not divide num_heads, rates outside [0, 1), shapes of inputs, mask or segments that do
        not fit; no rngs in train mode with dropout.
      TypeError: an input of integers, a mask that is not boolean.
    """


class GroupedQueryAttention(Attention):
    """Attention in which num_heads / num_kv_heads heads of queries share a head of keys and values.

    Query heads [a r, (a + 1) r) with r = num_heads / num_kv_heads use key head a, as transformers'
    Llama does; keys are not repeated in memory. What it saves is the cache of a decoder, which is
    num_kv_heads / num_heads as large, and the two narrower projections. The other settings are
    those of `MultiHeadAttention`.

    kernels = in_features * head_dim * 2 * (num_heads + num_kv_heads)
    biases = (head_dim * (num_heads + 2 * num_kv_heads) + in_features) * use_bias
    params = kernels + biases + 2 * head_dim * qk_norm
    MACs = positions * (kernels + 2 * n * num_heads * head_dim)

    Reference: Ainslie et al., *GQA: Training Generalized Multi-Query Transformer Models from
    Multi-Head Checkpoints* (arXiv 2305.13245), section 2.2.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.GroupedQueryAttention(8, 4, num_kv_heads=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 5, 8))).shape
    (2, 5, 8)

    Raises:
      ValueError, TypeError: as `MultiHeadAttention`.
    """

    def __init__(
        self, in_features: int, num_heads: int, *, num_kv_heads: int, **options: Unpack[Options]
    ):
        super().__init__(in_features, num_heads, num_kv_heads=num_kv_heads, **options)


class MultiQueryAttention(Attention):
    """Attention with one head of keys and values for all heads of queries.

    `GroupedQueryAttention` at its end: the smallest cache, 1 / num_heads of the full one.

    kernels = in_features * head_dim * 2 * (num_heads + 1)
    biases = (head_dim * (num_heads + 2) + in_features) * use_bias
    params = kernels + biases + 2 * head_dim * qk_norm
    MACs = positions * (kernels + 2 * n * num_heads * head_dim)

    Reference: Shazeer, *Fast Transformer Decoding: One Write-Head is All You Need* (arXiv
    1911.02150), section 3.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.MultiQueryAttention(8, 4, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 8))).shape
    (2, 5, 8)

    Raises:
      ValueError, TypeError: as `MultiHeadAttention`.
    """

    def __init__(self, in_features: int, num_heads: int, **options: Unpack[Options]):
        super().__init__(in_features, num_heads, num_kv_heads=1, **options)
