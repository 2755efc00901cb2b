# SPDX-License-Identifier: Apache-2.0
"""Cases of BlockDiagonalLinear."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def expected(module, x):
    """A dense kernel with zeros off the blocks."""
    blocks = array(module.kernel)
    k, p, q = blocks.shape
    kernel = np.zeros((k * p, k * q))
    for b in range(k):
        kernel[b * p : (b + 1) * p, b * q : (b + 1) * q] = blocks[b]
    y = x @ kernel
    return y if module.bias is None else y + array(module.bias)


def case(name, args, x, y, **kwargs):
    return Case(layers.BlockDiagonalLinear, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("two blocks", (6, 4), (3, 6), (3, 4), blocks=2),
    case("two batch axes, no bias", (6, 9), (2, 3, 6), (2, 3, 9), blocks=3, use_bias=False),
]
