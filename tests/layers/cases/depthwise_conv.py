# SPDX-License-Identifier: Apache-2.0
"""Cases of DepthwiseConv."""

import itertools

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def expected(module, x):
    """Channel by channel: every filter sees one channel, and m neighbours share it."""
    kernel = numpy_layers.array(module.kernel)
    planes = []
    for channel, j in itertools.product(range(module.in_features), range(module.multiplier)):
        o = channel * module.multiplier + j
        planes.append(
            numpy_layers.convolution(
                x[..., channel : channel + 1],
                kernel[..., o : o + 1],
                strides=module.strides,
                padding=module.padding,
                dilation=module.kernel_dilation,
            )
        )
    y = np.concatenate(planes, axis=-1)
    return y if module.bias is None else y + numpy_layers.array(module.bias)


def case(name, args, x, y, **kwargs):
    return Case(layers.DepthwiseConv, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("stride 2, odd", (4, 3, 2), (2, 7, 6, 4), (2, 4, 3, 4)),
    case("multiplier", (3, (3, 2)), (1, 5, 5, 3), (1, 5, 5, 6), multiplier=2, use_bias=False),
    case("dilated", (3, 5), (2, 6, 7, 3), (2, 6, 7, 3), kernel_dilation=2),
    case("1-D", (3, (4,), 2), (2, 9, 3), (2, 5, 3)),
    case("3-D", (2, (3, 1, 3)), (1, 3, 4, 5, 2), (1, 3, 4, 5, 2)),
]
