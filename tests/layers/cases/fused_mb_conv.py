# SPDX-License-Identifier: Apache-2.0
"""Cases of FusedMBConv."""

import jax

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case
from tests.layers.cases.squeeze_excite import expected as squeeze_excite


def expected(module, x):
    y = x if module.expand is None else numpy_layers.conv_bn_act(module.expand, x)
    y = y if module.se is None else squeeze_excite(module.se, y)
    y = numpy_layers.conv_bn_act(module.project, y)
    return x + y if module.has_skip else y


def case(name, args, x, y, **kwargs):
    return Case(layers.FusedMBConv, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("stride 2, odd", (3, 5), (2, 7, 6, 3), (2, 4, 3, 5), strides=2, act=jax.nn.relu),
    case("no expansion", (4, 4), (1, 4, 5, 4), (1, 4, 5, 4), expand_ratio=1),
    case("excited", (3, 3), (2, 4, 3, 3), (2, 4, 3, 3), expand_ratio=2, se_ratio=0.5),
]
