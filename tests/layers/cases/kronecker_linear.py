# SPDX-License-Identifier: Apache-2.0
"""Cases of KroneckerLinear."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def expected(module, x):
    """NumPy's Kronecker products, summed."""
    pairs = zip(array(module.left), array(module.right), strict=True)
    y = x @ sum(np.kron(left, right) for left, right in pairs)
    return y if module.bias is None else y + array(module.bias)


def case(name, args, x, y, **kwargs):
    return Case(layers.KroneckerLinear, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("right factor first", (6, 8), (3, 6), (3, 8), left_features=(3, 4)),
    case("left factor first", (6, 4), (3, 6), (3, 4), left_features=(3, 1)),
    case(
        "three terms, no bias",
        (4, 6),
        (2, 3, 4),
        (2, 3, 6),
        left_features=(2, 2),
        terms=3,
        use_bias=False,
    ),
]
