# SPDX-License-Identifier: Apache-2.0
"""Cases of SqueezeExcite."""

import jax

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def expected(module, x):
    means = x.mean(axis=(1, 2), keepdims=True)
    hidden = numpy_layers.activation(module.act, numpy_layers.conv(module.reduce, means))
    gate = numpy_layers.activation(module.gate, numpy_layers.conv(module.expand, hidden))
    return x * gate


CASES = [
    Case(layers.SqueezeExcite, (8,), x=(2, 5, 4, 8), y=(2, 5, 4, 8), oracle=expected),
    Case(
        layers.SqueezeExcite,
        (6,),
        {"rd_features": 3, "act": jax.nn.silu, "gate": jax.nn.hard_sigmoid},
        x=(1, 3, 7, 6),
        y=(1, 3, 7, 6),
        name="hard gate",
        oracle=expected,
    ),
]
