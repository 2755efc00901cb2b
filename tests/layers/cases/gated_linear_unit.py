# SPDX-License-Identifier: Apache-2.0
"""Cases of the gated linear units: Llama's formula with three separate matrices."""

from math import erf, sqrt

import jax
import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def silu(v):
    return v / (1 + np.exp(-v))


def gelu(v):
    return v * np.vectorize(lambda t: 0.5 * (1 + erf(t / sqrt(2))))(v)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def oracle(act):
    def expected(module, x):
        n = module.hidden_features
        gate_proj, up_proj = (
            array(module.gate_up.kernel)[:, :n],
            array(module.gate_up.kernel)[:, n:],
        )
        gate, up = x @ gate_proj, x @ up_proj
        if module.gate_up.bias is None:
            return (act(gate) * up) @ array(module.down.kernel)
        bias = array(module.gate_up.bias)
        hidden = act(gate + bias[:n]) * (up + bias[n:])
        return hidden @ array(module.down.kernel) + array(module.down.bias)

    return expected


def case(layer, formula, name="", args=(4, 6), x=(2, 3, 4), y=(2, 3, 4), **kwargs):
    return Case(layer, args, kwargs, x=x, y=y, name=name, oracle=oracle(formula))


CASES = [
    case(layers.GatedLinearUnit, silu),
    case(
        layers.GatedLinearUnit,
        sigmoid,
        "sigmoid, biases",
        (4, 6, 5),
        (3, 4),
        (3, 5),
        act=jax.nn.sigmoid,
        use_bias=True,
    ),
    case(layers.SwiGLU, silu, args=(4, 3, 5), y=(2, 3, 5)),
    case(layers.GEGLU, gelu),
]
