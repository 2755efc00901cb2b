# SPDX-License-Identifier: Apache-2.0
"""Cases of SeparableConv: Xception's order, MobileNetV1's, and without normalisation."""

import jax
import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def expected(module, x):
    y = numpy_layers.conv(module.depthwise, x)
    if module.bn_between is not None:
        y = numpy_layers.batch_norm(module.bn_between, y)
    if module.between and module.act is not None:
        y = np.maximum(y, 0)
    y = numpy_layers.conv(module.pointwise, y)
    if module.bn is not None:
        y = numpy_layers.batch_norm(module.bn, y)
    return y if module.act is None else np.maximum(y, 0)


def case(name, args, x, y, **kwargs):
    return Case(layers.SeparableConv, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("Xception", (4, 6, 3, 2), (2, 7, 6, 4), (2, 4, 3, 6)),
    case("MobileNetV1", (4, 6), (1, 5, 4, 4), (1, 5, 4, 6), between=True, act=jax.nn.relu),
    case("no norm", (3, 4, (5, 3)), (2, 6, 5, 3), (2, 6, 5, 4), norm=False, multiplier=2),
]
