# SPDX-License-Identifier: Apache-2.0
"""Cases of ConvBNAct."""

import jax

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def case(name, args, x, y, **kwargs):
    oracle = numpy_layers.conv_bn_act
    return Case(layers.ConvBNAct, args, kwargs, x=x, y=y, name=name, oracle=oracle)


CASES = [
    case("stride 2, odd", (3, 6, 3, 2), (2, 7, 6, 3), (2, 4, 3, 6)),
    case(
        "grouped and dilated",
        (4, 6, (3, 5)),
        (1, 6, 9, 4),
        (1, 6, 9, 6),
        feature_group_count=2,
        kernel_dilation=2,
        act=jax.nn.silu,
    ),
    case("no activation", (4, 5, 1), (2, 3, 3, 4), (2, 3, 3, 5), act=None),
]
