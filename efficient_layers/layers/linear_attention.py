# SPDX-License-Identifier: Apache-2.0
"""Attention with the features elu(x) + 1: linear in the length, recurrent in decoding."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.projected_heads import DecodingHeads
from efficient_layers.ops.chunks import check_chunk
from efficient_layers.ops.linear_attention import (
    Sums,
    causal_linear_attention,
    linear_attention,
    linear_attention_step,
)
from efficient_layers.ops.precision import float32_or_wider


class FeatureAttention(DecodingHeads):
    """y_i = sum_j (f(q_i) . g(k_j)) v_j / sum_j (f(q_i) . g(k_j)), a head; f, g from a subclass.

    Causal (j up to i): in chunks of `chunk_size`; a state of two sums in decoding.
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
        causal: bool = False,
        chunk_size: int = 64,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features,
            num_heads,
            head_dim=head_dim,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        check_chunk(type(self).__name__, chunk_size)
        self.causal = causal
        self.chunk_size = chunk_size

    def _mix(self, x: jax.Array, state: Sums | None) -> tuple[jax.Array, Sums | None]:
        q, k, v = self._all_heads(x)
        q, k = self._features(q, k)
        if not self.causal:
            return linear_attention(q, k, v), None
        if state is not None and x.shape[1] == 1:
            y, state = linear_attention_step(q[..., 0, :], k[..., 0, :], v[..., 0, :], state)
            return y[..., None, :], state
        return causal_linear_attention(q, k, v, state, chunk=self.chunk_size)

    def _features(self, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        raise NotImplementedError

    def _empty(self, batch: tuple[int, ...]) -> Sums:
        heads = (*batch, self.num_heads, self._feature_count())
        wide = float32_or_wider(self.dtype or self.param_dtype)
        return Sums(jnp.zeros((*heads, self.head_dim), wide), jnp.zeros(heads, wide))

    def _feature_count(self) -> int:
        return self.head_dim


class LinearAttention(FeatureAttention):
    """y_i = sum_j (f(q_i) . f(k_j)) v_j / sum_j (f(q_i) . f(k_j)) with f(x) = elu(x) + 1, a head.

    (*b, n, d) -> (*b, n, d); q, k, v are linear in x, and heads are joined by the linear `out`. The
    sums over j are formed once for all queries, so n x n weights are never there. `causal=True`
    sums up to i: products within chunks of `chunk_size` positions, and with the sums of the chunks
    before. Then `decode` goes on from a state of head_dim (head_dim + 1) numbers a head,
    in float32 at the least: a step's time and bytes do not depend on the position.

    inner = num_heads * head_dim
    size = min(chunk_size, 2 ** ceil(log2(n)))
    seen = 2 * head_dim + (size if causal else 0) * 2
    padded = size * ceil(n / size) if causal else n
    groups = positions // n
    params = 4 * d * inner + (3 * inner + d) * use_bias
    MACs = groups * (4 * n * d * inner + padded * inner * seen)

    Differs from the paper: where all weights of a query underflow, its output is 0 (the authors
    add 1e-6 to the denominator).

    Reference: Katharopoulos et al., *Transformers are RNNs: Fast Autoregressive Transformers with
    Linear Attention* (arXiv 2006.16236), sections 3.2 to 3.4.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.LinearAttention(8, 2, causal=True, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 8))).shape
    (1, 5, 8)
    >>> y, state = layer.decode(jnp.ones((1, 1, 8)), layer.init_state(1))

    Raises:
      ValueError: num_heads that do not divide in_features without a head_dim; a chunk_size below 1;
        an input of other features or without a position axis.
      TypeError: an input of integers.
    """

    def _features(self, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        return nnx.elu(q) + 1, nnx.elu(k) + 1
