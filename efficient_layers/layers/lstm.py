# SPDX-License-Identifier: Apache-2.0
"""LSTM and GRU over whole sequences, with torch's weights: the baselines of recurrence."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.layers.recurrent import Recurrent
from efficient_layers.ops.precision import float32_or_wider


class _Cell(Recurrent):
    """The products that LSTM and GRU share; a subclass gives `_step`, one position.

    The inputs of all positions go through one product before the loop, which keeps the product
    with the hidden state alone.
    """

    gates: ClassVar[int]

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
        rows, bound = self.gates * hidden_features, hidden_features**-0.5

        def draw(*shape: int) -> nnx.Param:
            key = rngs.params()
            return nnx.Param(jax.random.uniform(key, shape, param_dtype, -bound, bound))

        self.weight_ih_l0 = draw(rows, in_features)
        self.weight_hh_l0 = draw(rows, hidden_features)
        self.bias_ih_l0: Any = draw(rows) if use_bias else nnx.data(None)
        self.bias_hh_l0: Any = draw(rows) if use_bias else nnx.data(None)

    def _run(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        b, n, d = x.shape
        weights = (self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
        values = (None if w is None else w[...] for w in weights)
        arrays: Any = promote_dtype((x, *values), dtype=self.dtype)
        x, into, again, bias, hidden_bias = arrays
        driven = x.swapaxes(0, 1).reshape(n * b, d) @ into.T
        driven = (driven if bias is None else driven + bias).reshape(n, b, into.shape[0])
        recurrent = again.T
        wide = float32_or_wider(x.dtype)

        def step(state: Any, driven: jax.Array) -> tuple[Any, jax.Array]:
            hidden = self._hidden(state).astype(x.dtype) @ recurrent
            hidden = hidden if hidden_bias is None else hidden + hidden_bias
            state = self._step(driven.astype(wide), hidden.astype(wide), state)
            return state, self._hidden(state).astype(x.dtype)

        start = self._empty((b,), wide) if state is None else state
        last, y = lax.scan(step, start, driven)
        return y.swapaxes(0, 1), last

    def _hidden(self, state: Any) -> jax.Array:
        return state

    def _step(self, driven: jax.Array, hidden: jax.Array, state: Any) -> Any:
        raise NotImplementedError


class LSTMState(NamedTuple):
    """What an LSTM remembers."""

    hidden: Float[Array, "*b h"]
    cell: Float[Array, "*b h"]


class LSTM(_Cell):
    """c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c), (i f g o) = x W' + h U' + b.

    (*b, n, in_features) -> (*b, n, hidden_features): the h of all positions, from h = c = 0. One
    layer, one direction; `torch.nn.LSTM`'s parameter names, shapes, order of gates and
    initialisation (uniform within 1 / sqrt(hidden_features)), so its state loads by name. The
    product with x is one for all positions, that with h is in the loop. `decode` goes on from
    `LSTMState`, kept in float32 at the least.

    params = 4 * hidden_features * (in_features + hidden_features + 2 * use_bias)
    MACs = positions * 4 * hidden_features * (in_features + hidden_features)

    Reference: Hochreiter & Schmidhuber, *Long Short-Term Memory*, 1997; forget gate: Gers et al.,
    *Learning to Forget*, 2000.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.LSTM(8, 16, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 8))).shape
    (1, 5, 16)
    >>> y, state = layer.decode(jnp.ones((1, 1, 8)), layer.init_state(1))

    Raises:
      ValueError: sizes below 1; an input of other features or without a position axis.
      TypeError: an input of integers.
    """

    gates: ClassVar[int] = 4

    def _hidden(self, state: LSTMState) -> jax.Array:
        return state.hidden

    def _step(self, driven: jax.Array, hidden: jax.Array, state: LSTMState) -> LSTMState:
        i, f, g, o = jnp.split(driven + hidden, 4, -1)
        cell = nnx.sigmoid(f) * state.cell + nnx.sigmoid(i) * jnp.tanh(g)
        return LSTMState(nnx.sigmoid(o) * jnp.tanh(cell), cell)

    def _empty(self, batch: tuple[int, ...], dtype: Dtype) -> LSTMState:
        zeros = (jnp.zeros((*batch, self.hidden_features), dtype) for _ in range(2))
        return LSTMState(*zeros)


class GRU(_Cell):
    """h = (1 - z) tanh(x_n + r h_n) + z h, r = sigmoid(x_r + h_r), z = sigmoid(x_z + h_z).

    (*b, n, in_features) -> (*b, n, hidden_features): the h of all positions, from h = 0, with
    (x_r x_z x_n) = x W' + b and (h_r h_z h_n) = h U' + c. One layer, one direction;
    `torch.nn.GRU`'s parameter names, shapes, order of gates, place of the reset gate (after the
    product) and initialisation, so its state loads by name. The product with x is one for all
    positions, that with h is in the loop. `decode` goes on from h, kept in float32 at the least.

    params = 3 * hidden_features * (in_features + hidden_features + 2 * use_bias)
    MACs = positions * 3 * hidden_features * (in_features + hidden_features)

    Differs from the paper: the reset gate multiplies the product with h, not h (as in torch and
    cuDNN).

    Reference: Cho et al., *Learning Phrase Representations using RNN Encoder-Decoder* (arXiv
    1406.1078), section 2.3.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.GRU(8, 16, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 8))).shape
    (1, 5, 16)
    >>> y, state = layer.decode(jnp.ones((1, 1, 8)), layer.init_state(1))

    Raises:
      ValueError: sizes below 1; an input of other features or without a position axis.
      TypeError: an input of integers.
    """

    gates: ClassVar[int] = 3

    def _step(self, driven: jax.Array, hidden: jax.Array, state: jax.Array) -> jax.Array:
        xr, xz, xn = jnp.split(driven, 3, -1)
        hr, hz, hn = jnp.split(hidden, 3, -1)
        z = nnx.sigmoid(xz + hz)
        return (1 - z) * jnp.tanh(xn + nnx.sigmoid(xr + hr) * hn) + z * state
