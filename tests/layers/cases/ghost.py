# SPDX-License-Identifier: Apache-2.0
"""Cases of `layers.GhostModule` and `layers.GhostBottleneck`."""

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case
from tests.layers.cases.squeeze_excite import expected as squeeze_excite


def module_expected(module, x):
    primary = numpy_layers.conv_bn_act(module.primary, x)
    cheap = numpy_layers.conv_bn_act(module.cheap, primary)
    return np.concatenate([primary, cheap], axis=-1)[..., : module.out_features]


def bottleneck_expected(module, x):
    y = module_expected(module.expand, x)
    if module.depthwise is not None:
        y = numpy_layers.conv_bn_act(module.depthwise, y)
    if module.se is not None:
        y = squeeze_excite(module.se, y)
    shortcut = x
    if module.shortcut_depthwise is not None:
        for part in (module.shortcut_depthwise, module.shortcut_project):
            shortcut = numpy_layers.conv_bn_act(part, shortcut)
    return module_expected(module.contract, y) + shortcut


CASES = [
    Case(layers.GhostModule, (4, 6), x=(2, 5, 4, 4), y=(2, 5, 4, 6), oracle=module_expected),
    Case(
        layers.GhostModule,
        (3, 7, 3, 2),
        {"ratio": 3, "cheap_kernel_size": 5},
        x=(2, 7, 6, 3),
        y=(2, 4, 3, 7),
        name="ratio 3, stride 2, two channels cut",
        oracle=module_expected,
    ),
    Case(
        layers.GhostBottleneck,
        (6, 8, 6),
        x=(2, 5, 4, 6),
        y=(2, 5, 4, 6),
        oracle=bottleneck_expected,
    ),
    Case(
        layers.GhostBottleneck,
        (4, 7, 6),
        {"strides": 2, "kernel_size": 5, "se_ratio": 0.5},
        x=(2, 7, 6, 4),
        y=(2, 4, 3, 6),
        name="stride 2, odd width, squeeze-excite",
        oracle=bottleneck_expected,
    ),
]
