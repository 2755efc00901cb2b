# SPDX-License-Identifier: Apache-2.0
"""Convolution over few channels (a stem): slices side by side, then a matrix product."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

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
        rows = self._patches(x)
        y = lax.dot(rows, w.reshape(-1, w.shape[-1]), precision=self.window.precision)
        return y.reshape(self.window.y)

    def kernel_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
        contract = (((0,), (0,)), ((), ()))
        rows, g = self._patches(x), g.reshape(-1, g.shape[-1])
        dw = lax.dot_general(rows, g, contract, precision=self.window.precision)
        return dw.reshape(self.window.w)

    def _patches(self, x):
        padded = self.window.pad(x)
        parts = [part for _, part in self.window.slices(padded, self.window.y[1:-1])]
        patches = jnp.concatenate(parts, axis=-1)
        return patches.reshape(-1, patches.shape[-1])
