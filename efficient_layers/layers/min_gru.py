# SPDX-License-Identifier: Apache-2.0
"""A gated recurrent unit whose gate sees the input alone, so that all positions run at once."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.recurrent import Recurrent
from efficient_layers.ops.linear_recurrence import linear_recurrence
from efficient_layers.ops.precision import float32_or_wider


class MinGRU(Recurrent):
    """h_t = (1 - z_t) h_{t-1} + z_t g(x_t candidate), z_t = sigmoid(x_t gate).

    (*b, n, in_features) -> (*b, n, hidden_features), causal, from h = 0; g(u) = u + 1/2 for
    u >= 0, else sigmoid(u). Gate and candidate do not see h_{t-1}: two products of matrices for
    the whole sequence and an elementwise linear recurrence, which runs in log2(n) levels on
    accelerators and step by step on a CPU (see `ops/linear_recurrence.py`). Values are kept in
    float32 at the least. `decode` goes on from a state of hidden_features numbers.

    params = 2 * (in_features * hidden_features + hidden_features * use_bias)
    MACs = positions * 2 * in_features * hidden_features

    Differs from the paper: the recurrence is not taken to logarithms (all factors are in (0, 1),
    and only multiplied), so h starts at 0.

    Reference: Feng et al., *Were RNNs All We Needed?* (arXiv 2410.01201), sections 3.1 and B.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.MinGRU(8, 16, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 8))).shape
    (1, 5, 16)
    >>> y, state = layer.decode(jnp.ones((1, 1, 8)), layer.init_state(1))

    Raises:
      ValueError: sizes below 1; an input of other features or without a position axis.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(in_features, dtype, param_dtype, hidden_features=hidden_features)
        self.hidden_features = hidden_features
        kinds: Any = {"dtype": dtype, "param_dtype": param_dtype}
        sizes = (in_features, hidden_features)
        self.gate = nnx.Linear(*sizes, use_bias=use_bias, **kinds, rngs=rngs)
        self.candidate = nnx.Linear(*sizes, use_bias=use_bias, **kinds, rngs=rngs)

    def _run(self, x: jax.Array, state: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        b, n, d = x.shape
        rows = x.reshape(b * n, d)
        gate, candidate = self.gate(rows), self.candidate(rows)
        dtype, wide = gate.dtype, float32_or_wider(gate.dtype)
        gate, candidate = gate.astype(wide), candidate.astype(wide)
        added = nnx.sigmoid(gate) * _positive(candidate)
        shape = (b, n, self.hidden_features)
        kept, added = nnx.sigmoid(-gate).reshape(shape), added.reshape(shape)
        start = self._empty((b,), wide) if state is None else state
        h: Any = linear_recurrence(kept, added, start)
        return h.astype(dtype), h[:, -1]


def _positive(x: jax.Array) -> jax.Array:
    """x + 1/2 above 0, sigmoid(x) below: positive, continuous."""
    return jnp.where(x >= 0, x + 0.5, nnx.sigmoid(x))
