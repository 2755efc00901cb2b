# SPDX-License-Identifier: Apache-2.0
"""Linear attention by the delta rule: a memory that overwrites what it holds under a key."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.projected_heads import DecodingHeads
from efficient_layers.layers.rms_norm import RMSNorm
from efficient_layers.ops.chunks import check_chunk
from efficient_layers.ops.delta_rule import delta_rule, delta_rule_step
from efficient_layers.ops.precision import float32_or_wider


class DeltaNet(DecodingHeads):
    """S_i = S_{i-1} + w_i k_i (v_i - S_{i-1}' k_i)', o_i = S_i' q_i, y_i = norm(o_i), a head.

    (*b, n, d) -> (*b, n, d), causal. Queries and keys are unit(silu(x query)), unit(silu(x key)),
    of length 1; the rate w_i = sigmoid(x_i rate) is one number a head. So each position moves what
    the memory answers to its key towards its value: with w = 1 it replaces it. `norm` is an RMSNorm
    over head_dim, its scale shared by heads. Chunks of `chunk_size` (a power of two) positions, in
    the WY form: products, and one small triangular inverse a chunk. `decode` goes on from a state
    of head_dim^2 numbers a head, in float32 at the least, whatever the position.

    inner = num_heads * head_dim
    size = min(chunk_size, 2 ** ceil(log2(n)))
    padded = size * ceil(n / size)
    groups = positions // n
    projections = 4 * d * inner + d * num_heads
    params = projections + (3 * inner + d + num_heads) * use_bias + head_dim
    products = head_dim * (5 * size + 3 * head_dim) + (size**2 - 1) // 3
    MACs = groups * (n * projections + padded * num_heads * products)

    Differs from the paper: no short convolution before queries, keys and values (put a depthwise
    `CausalConv` before the layer).

    Reference: Yang et al., *Parallelizing Linear Transformers with the Delta Rule over Sequence
    Length* (arXiv 2406.06484), sections 3.1 to 3.3; Schlag et al. (arXiv 2102.11174), section 4.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.DeltaNet(8, 2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 8))).shape
    (1, 5, 8)
    >>> y, state = layer.decode(jnp.ones((1, 1, 8)), layer.init_state(1))

    Raises:
      ValueError: num_heads that do not divide in_features without a head_dim; a chunk_size that is
        no power of two; an input of other features or without a position axis.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
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
        check_chunk("DeltaNet", chunk_size, power_of_two=True)
        kinds: Any = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.rate = self._linear(in_features, num_heads, rngs)
        self.norm = RMSNorm(self.head_dim, **kinds)
        self.chunk_size = chunk_size

    def _mix(self, x: jax.Array, state: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        q, k, v = self._all_heads(x)
        q, k = _unit(nnx.silu(q)), _unit(nnx.silu(k))
        rate = nnx.sigmoid(self._heads(x, self.rate)[..., 0])
        if state is None or x.shape[1] > 1:
            y, state = delta_rule(q, k, v, rate, state, chunk=self.chunk_size)
        else:
            q, k, v, rate = (a[:, :, 0] for a in (q, k, v, rate))
            y, state = delta_rule_step(q, k, v, rate, state)
            y = y[..., None, :]
        return self.norm(y), state


def _unit(x: jax.Array) -> jax.Array:
    """x / |x|, with 1e-6 in the root: zeros stay zeros."""
    wide = x.astype(float32_or_wider(x.dtype))
    return (wide * jax.lax.rsqrt((wide * wide).sum(-1, keepdims=True) + 1e-6)).astype(x.dtype)
