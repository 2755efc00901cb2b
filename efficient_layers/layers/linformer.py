# SPDX-License-Identifier: Apache-2.0
"""Softmax attention over a learned summary of the sequence, of fixed length."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from efficient_layers.layers.projected_heads import ProjectedHeads
from efficient_layers.ops.chunks import wide_einsum
from efficient_layers.ops.landmarks import softmax_weights


class Linformer(ProjectedHeads):
    """y = softmax(q (E' k)' / sqrt(head_dim)) (F' v), a head, with E and F of (length, rank).

    (*b, n, d) -> (*b, n, d) for n up to `length`; a shorter sequence uses the first n rows of E and
    F, as if it were filled up with zeros. Every query sees `rank` mixtures of all positions, so
    weights are n x rank. E (`key_mix`) and F (`value_mix`) are shared by the heads (the paper's
    headwise sharing), drawn with variance 1 / length. Positions are bound to rows: it is not
    causal, it knows order without position embeddings, and it does not extend beyond `length`.

    inner = num_heads * head_dim
    groups = positions // n
    params = 4 * d * inner + (3 * inner + d) * use_bias + 2 * length * rank
    MACs = groups * (4 * n * d * inner + 4 * n * rank * inner)

    Differs from the paper: no sharing of E with F or between layers.

    Reference: Wang et al., *Linformer: Self-Attention with Linear Complexity* (arXiv 2006.04768),
    section 4, equation 7.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.Linformer(8, 2, length=16, rank=4, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 16, 8))).shape
    (1, 16, 8)

    Raises:
      ValueError: num_heads that do not divide in_features without a head_dim; a rank outside
        1 ... length; an input of other features, without a position axis, or longer than `length`.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        length: int,
        rank: int,
        head_dim: int | None = None,
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
        if not 1 <= rank <= length:
            raise ValueError(f"Linformer expects a rank from 1 to length={length}. Got {rank}.")
        draw = nnx.initializers.lecun_normal()
        self.key_mix = nnx.Param(draw(rngs.params(), (length, rank), param_dtype))
        self.value_mix = nnx.Param(draw(rngs.params(), (length, rank), param_dtype))
        self.length = length
        self.rank = rank

    def _mix(self, x: jax.Array, state: None) -> tuple[jax.Array, None]:
        q = self._heads(x, self.query)
        k = self._summary(x, self.key, self.key_mix)
        v = self._summary(x, self.value, self.value_mix)
        weights = softmax_weights(q, k).astype(v.dtype)
        return jnp.matmul(weights, v), None

    def _summary(self, x: jax.Array, linear: nnx.Linear, mix: nnx.Param) -> jax.Array:
        """(b, n, in_features) -> (b, h, rank, head_dim); heads apart only after the product."""
        b, n, d = x.shape
        y = linear(x.reshape(b * n, d)).reshape(b, n, linear.out_features)
        y, rows = promote_dtype((y, mix[:n]), dtype=self.dtype)
        y = wide_einsum("nr,bnf->brf", rows, y).astype(y.dtype)
        return y.reshape(b, self.rank, self.num_heads, self.head_dim).swapaxes(1, 2)

    def _check(self, x: jax.Array) -> None:
        super()._check(x)
        if x.shape[-2] > self.length:
            raise ValueError(
                f"Linformer was made for {self.length} positions at most. Got {x.shape[-2]}."
            )
