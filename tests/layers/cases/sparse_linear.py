# SPDX-License-Identifier: Apache-2.0
"""Cases of SparseLinear."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def expected(module, x):
    """Group by group, the smallest are set to zero one after the other."""
    kernel = array(module.kernel)
    for start in range(0, module.in_features, module.m):
        for o in range(module.out_features):
            group = kernel[start : start + module.m, o]
            for worst in np.argsort(np.abs(group))[: module.m - module.n]:
                group[worst] = 0
    y = x @ kernel
    return y if module.bias is None else y + array(module.bias)


def case(name, args, x, y, **kwargs):
    return Case(
        layers.SparseLinear, args, kwargs, x=x, y=y, name=name, oracle=expected, smooth=False
    )


CASES = [
    case("2:4", (8, 5), (3, 8), (3, 5)),
    case("1:3, no bias", (6, 4), (2, 3, 6), (2, 3, 4), n=1, m=3, use_bias=False),
]
