# SPDX-License-Identifier: Apache-2.0
"""Softmax attention in expectation, by random features: linear in the length."""

from math import ceil, log

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.linear_attention import FeatureAttention
from efficient_layers.layers.lora_linear import Frozen
from efficient_layers.ops.performer import orthogonal_directions, softmax_features


class Performer(FeatureAttention):
    """y_i = sum_j (f(q_i) . f(k_j)) v_j / sum_j (f(q_i) . f(k_j)), E[f(q) . f(k)] = exp(q . k).

    (*b, n, d) -> (*b, n, d). f_r(x) = exp(w_r . x - |x|^2 / 2) with x scaled by head_dim^(-1/4)
    and rows w_r standard normal, orthogonal within blocks of head_dim: so it estimates softmax
    attention, with an error that falls as 1 / sqrt(num_features) and grows with exp(|q + k|^2).
    The rows lie in the `Frozen` variable `projection`, one set for all heads; `redraw` draws new
    ones (the paper: every some hundred steps of training). num_features defaults to head_dim
    ln(head_dim), to a multiple of 8. Form, causal chunks, state and decoding are those of
    `LinearAttention`. Features are computed in float32 at the least.

    inner = num_heads * head_dim
    size = min(chunk_size, 2 ** ceil(log2(n)))
    across = 2 * num_features * head_dim
    within = size * (num_features + head_dim) if causal else 0
    padded = size * ceil(n / size) if causal else n
    groups = positions // n
    params = 4 * d * inner + (3 * inner + d) * use_bias
    features = 2 * n * inner * num_features
    MACs = groups * (4 * n * d * inner + features + padded * num_heads * (across + within))

    Differs from the paper: no constant is added to features, and keys are not scaled by their
    largest feature (that would let a causal layer see later keys); a query's features are, which
    cancels. A key longer than about 13 head_dim^(1/4) underflows to a weight of 0.

    Reference: Choromanski et al., *Rethinking Attention with Performers* (arXiv 2009.14794),
    sections 2.2 to 2.4.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.Performer(8, 2, num_features=16, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 8))).shape
    (1, 5, 8)

    Raises:
      ValueError: num_heads that do not divide in_features without a head_dim; num_features or a
        chunk_size below 1; an input of other features or without a position axis.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
        num_features: int | None = None,
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
            causal=causal,
            chunk_size=chunk_size,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        if num_features is not None and num_features < 1:
            raise ValueError(f"Performer expects num_features of at least 1. Got {num_features}.")
        enough = 8 * max(1, ceil(self.head_dim * log(self.head_dim) / 8))
        self.num_features = num_features or enough
        self.projection = Frozen(self._draw(rngs))

    def redraw(self, rngs: nnx.Rngs) -> None:
        """New random directions, from the stream "params" of `rngs`."""
        self.projection.set_value(self._draw(rngs))

    def _draw(self, rngs: nnx.Rngs) -> jax.Array:
        sizes = (self.num_features, self.head_dim)
        return orthogonal_directions(rngs.params(), *sizes, self.param_dtype)

    def _features(self, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        projection = self.projection[...]
        query = softmax_features(q, projection, query=True)
        key = softmax_features(k, projection, query=False)
        return query.astype(q.dtype), key.astype(k.dtype)

    def _feature_count(self) -> int:
        return self.num_features
