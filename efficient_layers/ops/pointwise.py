# SPDX-License-Identifier: Apache-2.0
"""1x1 convolution as a matrix product: y[p, o] = x[p, c] w[c, o] over all positions p."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from efficient_layers.ops.trilinear import Form
from efficient_layers.ops.window import Window


def serves(window: Window) -> bool:
    """Whether `window` is a dense 1x1 convolution without padding (strides may skip positions)."""
    return (
        window.groups == 1
        and all(k == 1 for k in window.kernel)
        and all(pair == (0, 0) for pair in window.padding)
        and all(d == 1 for d in window.x_dilation)
    )


@dataclass(frozen=True)
class Pointwise(Form):
    """One matrix product forward and one for each gradient."""

    def forward(self, x: jax.Array, w: jax.Array) -> jax.Array:
        rows = self._positions(x)
        y = _dot(rows, w.reshape(w.shape[-2:]), ((1,), (0,)), self)
        return y.reshape(self.window.y)

    def input_gradient(self, w: jax.Array, g: jax.Array) -> jax.Array:
        rows = _dot(g.reshape(-1, g.shape[-1]), w.reshape(w.shape[-2:]), ((1,), (1,)), self)
        dx = rows.reshape(*g.shape[:-1], self.window.x[-1])
        spatial = zip(self.window.x[1:-1], g.shape[1:-1], self.window.strides, strict=True)
        config = [(0, x - (y - 1) * s - 1, s - 1) for x, y, s in spatial]
        return lax.pad(dx, jnp.zeros((), dx.dtype), [(0, 0, 0), *config, (0, 0, 0)])

    def kernel_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
        dw = _dot(self._positions(x), g.reshape(-1, g.shape[-1]), ((0,), (0,)), self)
        return dw.reshape(self.window.w)

    def map_members(self, function, *operands):
        return jax.vmap(function)(*operands)

    def _positions(self, x):
        index = tuple(slice(None, None, s) for s in self.window.strides)
        return x[(slice(None), *index)].reshape(-1, x.shape[-1])


def _dot(a, b, contract, form):
    return lax.dot_general(a, b, (contract, ((), ())), precision=form.window.precision)
