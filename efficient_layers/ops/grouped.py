# SPDX-License-Identifier: Apache-2.0
"""Grouped convolution as one plain convolution a group, side by side on the channels.

XLA's CPU backend differentiates a grouped convolution very slowly (3x3, 8x28x28x256, 32 groups:
4,167 ms with gradients); 32 plain ones take 27 ms.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from efficient_layers.ops.trilinear import Form
from efficient_layers.ops.window import Window

MAX_GROUPS = 64


def serves(window: Window) -> bool:
    """Whether `window` has groups, few enough to write one convolution for each."""
    return 1 < window.groups <= MAX_GROUPS


@dataclass(frozen=True)
class Grouped(Form):
    """`window.groups` plain convolutions, each with its share of the channels."""

    @property
    def part(self) -> Form:
        window = self.window
        share = window.groups
        return Form(
            replace(
                window,
                x=(*window.x[:-1], window.x[-1] // share),
                w=(*window.w[:-1], window.w[-1] // share),
                groups=1,
            )
        )

    def forward(self, x: jax.Array, w: jax.Array) -> jax.Array:
        return self._each(self.part.forward, x, w)

    def input_gradient(self, w: jax.Array, g: jax.Array) -> jax.Array:
        return self._each(self.part.input_gradient, w, g)

    def kernel_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
        return self._each(self.part.kernel_gradient, x, g)

    def _each(self, function, a, b):
        groups = self.window.groups
        pairs = zip(jnp.split(a, groups, axis=-1), jnp.split(b, groups, axis=-1), strict=True)
        return jnp.concatenate([function(*pair) for pair in pairs], axis=-1)
