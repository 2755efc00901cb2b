# SPDX-License-Identifier: Apache-2.0
"""Cases of `layers.ConvNeXtBlock`."""

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def expected(module, x):
    y = numpy_layers.conv(module.depthwise, x)
    centred = y - y.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + module.norm.epsilon)
    y = centred / deviation * numpy_layers.array(module.norm.scale)
    y = y + numpy_layers.array(module.norm.bias)
    y = numpy_layers.activation("gelu", numpy_layers.linear(module.expand, y))
    y = numpy_layers.linear(module.project, y)
    return x + (y if module.gamma is None else y * numpy_layers.array(module.gamma))


CASES = [
    Case(
        layers.ConvNeXtBlock,
        (4,),
        {"drop_path": 0.25},
        x=(2, 9, 8, 4),
        y=(2, 9, 8, 4),
        name="drop path",
        oracle=expected,
    ),
    Case(
        layers.ConvNeXtBlock,
        (5,),
        {"kernel_size": 3, "expand_ratio": 1.5, "layer_scale": None},
        x=(2, 4, 3, 5),
        y=(2, 4, 3, 5),
        name="3x3, no layer scale",
        oracle=expected,
    ),
]
