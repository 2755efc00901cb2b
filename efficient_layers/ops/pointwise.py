# SPDX-License-Identifier: Apache-2.0
"""1x1 convolution as a matrix product: y[p, o] = x[p, c] w[c, o] over all positions p.

With few channels to add over (16 to 32, MobileNet's narrow ends) forward is a fused loop (thin.py).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from efficient_layers.ops.thin import is_thin, thin_dot
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
        y = _product(self._sampled(x), w.reshape(w.shape[-2:]), self.window.precision)
        return y.reshape(self.window.y)

    def input_gradient(self, w: jax.Array, g: jax.Array) -> jax.Array:
        contract = (
            ((g.ndim - 1,), (1,)),
            ((), ()),
        )  # no thin loop: over w^T it is six times slower
        dx = lax.dot_general(g, w.reshape(w.shape[-2:]), contract, precision=self.window.precision)
        spatial = zip(self.window.x[1:-1], g.shape[1:-1], self.window.strides, strict=True)
        config = [(0, x - (y - 1) * s - 1, s - 1) for x, y, s in spatial]
        return lax.pad(dx, jnp.zeros((), dx.dtype), [(0, 0, 0), *config, (0, 0, 0)])

    def kernel_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
        x, g = (a.reshape(-1, a.shape[-1]) for a in (self._sampled(x), g))
        contract = (((0,), (0,)), ((), ()))
        dw = lax.dot_general(x, g, contract, precision=self.window.precision)
        return dw.reshape(self.window.w)

    def map_members(self, function, *operands):
        return jax.vmap(function)(*operands)

    def _sampled(self, x):
        return x[(slice(None), *(slice(None, None, s) for s in self.window.strides))]


def _product(x, w, precision):
    """x @ w over the last axis of x."""
    if is_thin(*w.shape):
        return thin_dot((x[..., k] for k in range(w.shape[0])), w)
    y = lax.dot(x.reshape(-1, x.shape[-1]), w, precision=precision)
    return y.reshape(*x.shape[:-1], w.shape[-1])
