# SPDX-License-Identifier: Apache-2.0
"""Convolution over few channels (a network's stem): slices side by side, then one matrix product."""

import itertools
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
    taps = 1
    for k in window.kernel:
        taps *= k
    return window.groups == 1 and window.x[-1] <= MAX_CHANNELS and 1 < taps <= MAX_TAPS


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
        window = self.window
        spatial = zip(window.padding, window.x_dilation, strict=True)
        config = [(0, 0, 0), *((lo, hi, d - 1) for (lo, hi), d in spatial), (0, 0, 0)]
        padded = lax.pad(x, jnp.zeros((), x.dtype), config)
        parts = []
        for tap in itertools.product(*map(range, window.kernel)):
            start = [t * d for t, d in zip(tap, window.w_dilation, strict=True)]
            ends = zip(start, window.y[1:-1], window.strides, strict=True)
            index = tuple(slice(a, a + (o - 1) * s + 1, s) for a, o, s in ends)
            parts.append(padded[(slice(None), *index)])
        patches = jnp.concatenate(parts, axis=-1)
        return patches.reshape(-1, patches.shape[-1])
