# SPDX-License-Identifier: Apache-2.0
"""Cases of CausalConv: full, dilated, depthwise, strided."""

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def expected(module, x):
    """Position by position, looking back: tap j of the kernel's end sees d j positions ago."""
    kernel = numpy_layers.array(module.kernel)  # k c/g o
    taps, per_group, outputs = kernel.shape
    share = outputs // module.feature_group_count
    y = np.zeros((len(x), -(-x.shape[1] // module.strides), outputs))
    for i, o, back in np.ndindex(y.shape[1], outputs, taps):
        position = i * module.strides - back * module.kernel_dilation
        if position >= 0:
            first = o // share * per_group
            seen = x[:, position, first : first + per_group]
            y[:, i, o] += seen @ kernel[taps - 1 - back, :, o]
    return y if module.bias is None else y + numpy_layers.array(module.bias)


def case(name, args, x, y, **kwargs):
    return Case(layers.CausalConv, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("dilated", (3, 4, 3), (2, 9, 3), (2, 9, 4), kernel_dilation=2),
    case("depthwise", (4, 4, 4), (1, 7, 4), (1, 7, 4), feature_group_count=4, use_bias=False),
    case("grouped, stride 2", (4, 6, 2, 2), (2, 7, 4), (2, 4, 6), feature_group_count=2),
]
