# SPDX-License-Identifier: Apache-2.0
"""Linear attention with a learned decay for every feature: chunked in training, a state after."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.projected_heads import DecodingHeads
from efficient_layers.layers.rms_norm import RMSNorm
from efficient_layers.ops.chunks import check_chunk
from efficient_layers.ops.gated_linear_attention import (
    gated_linear_attention,
    gated_linear_attention_step,
)
from efficient_layers.ops.precision import float32_or_wider


class GatedLinearAttention(DecodingHeads):
    """S_i = diag(a_i) S_{i-1} + k_i v_i', o_i = S_i' q_i, y_i = norm(o_i) silu(x_i gate), a head.

    (*b, n, d) -> (*b, n, d), causal. The decay a_i = sigmoid(x_i decay_down decay_up)^(1 /
    temperature) is one number a feature of the keys, by a product of rank `decay_rank`; a high
    temperature keeps it near 1. `norm` is an RMSNorm over head_dim, its scale shared by heads.
    Chunks of `chunk_size` (a power of two) positions, all decays in log space: no quotient of
    decays is formed, so strong ones neither overflow nor lose what they keep. `decode` goes on from
    a state of head_dim^2 numbers a head, in float32 at the least, whatever the position.

    inner = num_heads * head_dim
    size = min(chunk_size, 2 ** ceil(log2(n)))
    padded = size * ceil(n / size)
    groups = positions // n
    projections = 5 * d * inner + decay_rank * (d + inner)
    params = projections + (4 * inner + d) * use_bias + inner + head_dim
    MACs = groups * (n * projections + padded * inner * (2 * head_dim + size - 1))

    Differs from the paper: keys have the width of values (there half of it).

    Reference: Yang et al., *Gated Linear Attention Transformers with Hardware-Efficient Training*
    (arXiv 2312.06635), sections 4.1 (form), 4.3 (chunks in log space) and 4.4 (the layer).

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.GatedLinearAttention(8, 2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 8))).shape
    (1, 5, 8)
    >>> y, state = layer.decode(jnp.ones((1, 1, 8)), layer.init_state(1))

    Raises:
      ValueError: num_heads that do not divide in_features without a head_dim; a decay_rank below 1;
        a temperature that is not positive; a chunk_size that is no power of two; an input of other
        features or without a position axis.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
        decay_rank: int = 16,
        temperature: float = 16.0,
        chunk_size: int = 64,
        use_bias: bool = False,
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
        check_chunk("GatedLinearAttention", chunk_size, power_of_two=True)
        if decay_rank < 1 or not temperature > 0:
            raise ValueError(
                "GatedLinearAttention expects a decay_rank of at least 1 and a positive "
                f"temperature. Got decay_rank={decay_rank}, temperature={temperature}."
            )
        inner = self.num_heads * self.head_dim
        kinds: Any = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.decay_down = self._linear(in_features, decay_rank, rngs, use_bias=False)
        self.decay_up = self._linear(decay_rank, inner, rngs, use_bias=True)
        self.gate = self._linear(in_features, inner, rngs)
        self.norm = RMSNorm(self.head_dim, **kinds)
        self.decay_rank = decay_rank
        self.temperature = temperature
        self.chunk_size = chunk_size

    def _mix(self, x: jax.Array, state: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        q, k, v = self._all_heads(x)
        arrays = (q, k, v, self._log_decay(x))
        if state is not None and x.shape[1] == 1:
            q, k, v, decay = (a[..., 0, :] for a in arrays)
            y, state = gated_linear_attention_step(q, k, v, decay, state)
            y = y[..., None, :]
        else:
            y, state = gated_linear_attention(*arrays, state, chunk=self.chunk_size)
        return self.norm(y) * nnx.silu(self._heads(x, self.gate)), state

    def _log_decay(self, x: jax.Array) -> jax.Array:
        b, n, d = x.shape
        y = self.decay_up(self.decay_down(x.reshape(b * n, d)))
        y = y.reshape(b, n, self.num_heads, self.head_dim).swapaxes(1, 2)
        return nnx.log_sigmoid(y.astype(float32_or_wider(y.dtype))) / self.temperature
