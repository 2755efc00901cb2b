# SPDX-License-Identifier: Apache-2.0
"""Cases of `layers.RepVGGBlock`."""

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def expected(module, x):
    if module.conv is not None:
        return np.maximum(numpy_layers.conv(module.conv, x), 0)
    y = numpy_layers.conv_bn_act(module.conv_kxk, x) + numpy_layers.conv_bn_act(module.conv_1x1, x)
    if module.identity is not None:
        y = y + numpy_layers.batch_norm(module.identity, x)
    return np.maximum(y, 0)


CASES = [
    Case(layers.RepVGGBlock, (4, 4), x=(2, 5, 4, 4), y=(2, 5, 4, 4), oracle=expected),
    Case(
        layers.RepVGGBlock,
        (4, 6, 5, 2),
        {"feature_group_count": 2},
        x=(2, 7, 6, 4),
        y=(2, 4, 3, 6),
        name="5x5, stride 2, 2 groups",
        oracle=expected,
    ),
    Case(
        layers.RepVGGBlock,
        (4, 4, 3, 2),
        {"reparameterised": True},
        x=(2, 5, 4, 4),
        y=(2, 3, 2, 4),
        name="re-parameterised",
        oracle=expected,
    ),
]
