# SPDX-License-Identifier: Apache-2.0
"""Cases of GroupNorm: an example and a group at a time."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def expected(module, x):
    y = np.empty_like(x)
    for example in range(len(x)):
        for start in range(0, x.shape[-1], module.group_size):
            group = (example, ..., slice(start, start + module.group_size))
            y[group] = (x[group] - x[group].mean()) / np.sqrt(x[group].var() + module.epsilon)
    y = y if module.scale is None else y * array(module.scale)
    return y if module.bias is None else y + array(module.bias)


def case(name, args, x, **kwargs):
    return Case(layers.GroupNorm, args, kwargs, x=x, y=x, name=name, oracle=expected)


CASES = [
    case("3 groups", (6, 3), (2, 4, 3, 6)),
    case("group size", (8, None, 2), (2, 5, 8)),
    case("one group, no scale", (4, 1), (2, 3, 2, 2, 4), use_scale=False),
    case("no space", (6, 2), (3, 6), use_bias=False),
]
