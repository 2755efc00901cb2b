# SPDX-License-Identifier: Apache-2.0
"""Cases of InvertedResidual: the blocks of MobileNetV2, MobileNetV3 and EfficientNet."""

import jax

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case
from tests.layers.cases.squeeze_excite import expected as squeeze_excite


def expected(module, x):
    y = x if module.expand is None else numpy_layers.conv_bn_act(module.expand, x)
    y = numpy_layers.conv_bn_act(module.depthwise, y)
    y = y if module.se is None else squeeze_excite(module.se, y)
    y = numpy_layers.conv_bn_act(module.project, y)
    return x + y if module.has_skip else y


def case(name, args, x, y, **kwargs):
    return Case(layers.InvertedResidual, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("stride 2, odd", (4, 6), (2, 7, 6, 4), (2, 4, 3, 6), strides=2, expand_ratio=2),
    case("no expansion", (4, 4), (1, 4, 5, 4), (1, 4, 5, 4), expand_ratio=1),
    case(
        "MobileNetV3",
        (4, 4),
        (2, 5, 5, 4),
        (2, 5, 5, 4),
        kernel_size=5,
        expand_ratio=3,
        act=jax.nn.hard_swish,
        se_ratio=0.25,
        se_act=jax.nn.relu,
        se_gate=jax.nn.hard_sigmoid,
    ),
    case(
        "EfficientNet",
        (4, 5),
        (2, 4, 6, 4),
        (2, 4, 6, 5),
        expand_ratio=2,
        act=jax.nn.silu,
        se_features=1,
    ),
]
