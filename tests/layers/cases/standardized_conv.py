# SPDX-License-Identifier: Apache-2.0
"""Cases of StandardizedConv: a filter at a time, then NumPy's convolution."""

from types import SimpleNamespace

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def expected(module, x):
    kernel = array(module.kernel)
    for o in range(kernel.shape[-1]):
        w = kernel[..., o]
        w = (w - w.mean()) / np.sqrt(w.var() + module.epsilon)
        if module.scaled:
            w = w * module.gamma * array(module.gain)[o] / np.sqrt(w.size)
        kernel[..., o] = w
    return numpy_layers.conv(SimpleNamespace(**(vars(module) | {"kernel": kernel})), x)


def case(name, args, x, y, **kwargs):
    return Case(layers.StandardizedConv, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("3x3", (4, 6, (3, 3)), (2, 5, 4, 4), (2, 5, 4, 6)),
    case(
        "scaled, groups, stride 2",
        (4, 6, (3, 3), 2),
        (2, 5, 4, 4),
        (2, 3, 2, 6),
        scaled=True,
        gamma=1.7139,
        feature_group_count=2,
        use_bias=False,
    ),
    case("depthwise 1-D", (4, 4, 3), (2, 5, 4), (2, 5, 4), feature_group_count=4),
]
