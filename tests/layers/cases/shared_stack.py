# SPDX-License-Identifier: Apache-2.0
"""Cases of SharedStack: the schedule written out, layer by layer."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


class Residual(nnx.Linear):
    """y = x + drop_path(tanh(x kernel)): a layer that draws while training."""

    def __init__(self, *, rngs):
        super().__init__(4, 4, use_bias=False, rngs=rngs)
        self.drop = layers.DropPath(0.5)

    def __call__(self, x, *, rngs=None):
        return x + self.drop(jnp.tanh(super().__call__(x)), rngs=rngs)


class Tanh(nnx.Linear):
    """y = tanh(x kernel)."""

    def __init__(self, *, rngs):
        super().__init__(4, 4, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return jnp.tanh(super().__call__(x))


def residual(rngs):
    return Residual(rngs=rngs)


def tanh(rngs):
    return Tanh(rngs=rngs)


def oracle(order, skip):
    def expected(module, x):
        for letter in order:
            update = np.tanh(x @ array(module.layers["abc".index(letter)].kernel))
            x = x + update if skip else update
        return x

    return expected


def case(name, make, order, x=(2, 4), **kwargs):
    check = oracle(order, skip=make is residual)
    args = (make, len(order))
    return Case(layers.SharedStack, args, kwargs, x=x, y=x, name=name, oracle=check)


CASES = [
    case("one layer, drops paths", residual, "aaa"),
    case("consecutive", tanh, "aabb", (2, 3, 4), groups=2),
    case("cycle", tanh, "abcabc", groups=3, pattern="cycle"),
    case("sandwich", residual, "abbc", groups=3, pattern="sandwich"),
]
