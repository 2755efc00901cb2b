# SPDX-License-Identifier: Apache-2.0
"""Linear state space with a diagonal complex transition (LRU), its positions all at once."""

from math import pi
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from efficient_layers.layers.recurrent import Recurrent
from efficient_layers.ops.linear_recurrence import Complex, linear_recurrence
from efficient_layers.ops.precision import float32_or_wider


class DiagonalSSM(Recurrent):
    """h_t = l h_{t-1} + s (x_t inward), y_t = Re(h_t outward) + skip x_t, elementwise in h.

    (*b, n, in_features) -> (*b, n, in_features), causal, from h = 0, linear in x: put a
    nonlinearity after it. h has state_features complex numbers, l = exp(-exp(log_decay) + i
    exp(log_phase)) is inside the unit circle whatever the parameters, s = exp(log_scale). At the
    start |l| is spread over the ring (r_min, r_max) by area, phases evenly over (0, max_phase),
    and s = sqrt(1 - |l|^2) keeps the variance of h. `inward` (in, 2 state) and `outward` (2 state,
    in) hold real and imaginary parts side by side (of `outward` the negative imaginary part). The
    recurrence is in float32 at the least, and as `ops/linear_recurrence.py` runs it: in log2(n)
    levels on accelerators, step by step on a CPU. `decode` goes on from 2 state_features numbers.

    params = 3 * state_features + 4 * in_features * state_features + in_features
    MACs = positions * 4 * in_features * state_features

    Reference: Orvieto et al., *Resurrecting Recurrent Neural Networks for Long Sequences* (arXiv
    2303.06349), section 3 and appendix A; Gu et al. (S4D, arXiv 2206.11893).

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.DiagonalSSM(8, 16, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 8))).shape
    (1, 5, 8)
    >>> y, state = layer.decode(jnp.ones((1, 1, 8)), layer.init_state(1))

    Raises:
      ValueError: sizes below 1; not 0 <= r_min < r_max <= 1; a max_phase that is not positive; an
        input of other features or without a position axis.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        state_features: int,
        *,
        r_min: float = 0.9,
        r_max: float = 0.999,
        max_phase: float = 2 * pi,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(in_features, dtype, param_dtype, state_features=state_features)
        if not 0 <= r_min < r_max <= 1 or not max_phase > 0:
            raise ValueError(
                "DiagonalSSM expects 0 <= r_min < r_max <= 1 and a positive max_phase. "
                f"Got r_min={r_min}, r_max={r_max}, max_phase={max_phase}."
            )
        d, size = in_features, state_features
        area, angle = jax.random.uniform(rngs.params(), (2, size), minval=1e-4, maxval=1 - 1e-4)
        decay = -jnp.log(area * (r_max**2 - r_min**2) + r_min**2) / 2  # -log |l|
        self.log_decay = nnx.Param(jnp.log(decay).astype(param_dtype))
        self.log_phase = nnx.Param(jnp.log(max_phase * angle).astype(param_dtype))
        self.log_scale = nnx.Param(0.5 * jnp.log1p(-jnp.exp(-2 * decay)).astype(param_dtype))
        draw, key = nnx.initializers.normal, rngs.params
        self.inward = nnx.Param(draw((2 * d) ** -0.5)(key(), (d, 2 * size), param_dtype))
        self.outward = nnx.Param(draw(size**-0.5)(key(), (2 * size, d), param_dtype))
        self.skip = nnx.Param(draw(1.0)(key(), (d,), param_dtype))
        self.state_features = state_features

    def _run(self, x: jax.Array, state: Complex | None) -> tuple[jax.Array, Complex]:
        b, n, d = x.shape
        arrays: Any = (x, self.inward[...], self.outward[...], self.skip[...])
        x, inward, outward, skip = promote_dtype(arrays, dtype=self.dtype)
        rows = x.reshape(b * n, d)
        wide = float32_or_wider(x.dtype)
        scale = jnp.exp(self.log_scale[...].astype(wide))
        driven = (rows @ inward).astype(wide).reshape(b, n, 2, self.state_features) * scale
        driven = Complex(driven[..., 0, :], driven[..., 1, :])
        start = self._empty((b,), wide) if state is None else state
        h: Any = linear_recurrence(self._transition(driven.real), driven, start)
        both = jnp.concatenate(h, -1).reshape(b * n, 2 * self.state_features)
        y = both.astype(x.dtype) @ outward + skip * rows
        return y.reshape(b, n, d), jax.tree.map(lambda part: part[:, -1], h)

    def _transition(self, like: jax.Array) -> Complex:
        """l at every position."""
        size = jnp.exp(-jnp.exp(self.log_decay[...].astype(like.dtype)))
        phase = jnp.exp(self.log_phase[...].astype(like.dtype))
        parts = (size * jnp.cos(phase), size * jnp.sin(phase))
        return Complex(*(jnp.broadcast_to(part, like.shape) for part in parts))

    def _empty(self, batch: tuple[int, ...], dtype: Dtype) -> Complex:
        zeros = (jnp.zeros((*batch, self.state_features), dtype) for _ in range(2))
        return Complex(*zeros)
