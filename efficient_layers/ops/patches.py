# SPDX-License-Identifier: Apache-2.0
"""Convolution over few channels (a stem): slices side by side, then a matrix product.

A stem's 27 numbers are so few that the product runs as a fused loop over the slices (see thin.py).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from efficient_layers.ops.thin import is_thin, thin_dot
from efficient_layers.ops.trilinear import Form
from efficient_layers.ops.window import Window

MAX_CHANNELS = 4
MAX_TAPS = 64


def serves(window: Window) -> bool:
    """Whether patches of `window` are short enough to be written out (9 x 3 numbers for a stem)."""
    few = window.groups == 1 and window.x[-1] <= MAX_CHANNELS
    return few and 1 < window.taps <= MAX_TAPS


@dataclass(frozen=True)
class Patches(Form):
    """y[p, o] = patches[p, (t, c)] w[(t, c), o]; the gradient of the input is left to XLA."""

    def forward(self, x: jax.Array, w: jax.Array) -> jax.Array:
        w = w.reshape(-1, w.shape[-1])
        if is_thin(*w.shape):
            return thin_dot((p[..., c] for p in self._parts(x) for c in range(x.shape[-1])), w)
        y = lax.dot(self._patches(x), w, precision=self.window.precision)
        return y.reshape(self.window.y)

    def kernel_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
        contract = (((0,), (0,)), ((), ()))
        rows, g = self._patches(x), g.reshape(-1, g.shape[-1])
        dw = lax.dot_general(rows, g, contract, precision=self.window.precision)
        return dw.reshape(self.window.w)

    def _parts(self, x):
        return [part for _, part in self.window.slices(self.window.pad(x), self.window.y[1:-1])]

    def _patches(self, x):
        patches = jnp.concatenate(self._parts(x), axis=-1)
        return patches.reshape(-1, patches.shape[-1])
