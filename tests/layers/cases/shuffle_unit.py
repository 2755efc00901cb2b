# SPDX-License-Identifier: Apache-2.0
"""Cases of `layers.ShuffleUnit`."""

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def expected(module, x):
    """Channels alternate between the branches: even ones the shortcut, odd ones the work."""
    half = module.project.conv.out_features
    shortcut, worked = x[..., :half], x[..., half:]
    if module.strides > 1:
        shortcut = worked = x
        for part in (module.shortcut_depthwise, module.shortcut_project):
            shortcut = numpy_layers.conv_bn_act(part, shortcut)
    for part in (module.expand, module.depthwise, module.project):
        worked = numpy_layers.conv_bn_act(part, worked)
    y = np.empty((*worked.shape[:-1], 2 * half))
    y[..., 0::2], y[..., 1::2] = shortcut, worked
    return y


CASES = [
    Case(layers.ShuffleUnit, (8, 8), x=(2, 5, 4, 8), y=(2, 5, 4, 8), oracle=expected),
    Case(
        layers.ShuffleUnit,
        (5, 12),
        {"strides": 2},
        x=(2, 7, 6, 5),
        y=(2, 4, 3, 12),
        name="stride 2, odd",
        oracle=expected,
    ),
]
