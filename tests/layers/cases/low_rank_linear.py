# SPDX-License-Identifier: Apache-2.0
"""Cases of LowRankLinear."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def expected(module, x):
    """Sum of rank-one maps, a factor pair at a time."""
    u, v = array(module.u), array(module.v)
    y = np.zeros((*x.shape[:-1], module.out_features))
    for r in range(module.rank):
        y += np.tensordot(x, u[:, r], 1)[..., None] * v[r]
    return y if module.bias is None else y + array(module.bias)


def case(name, args, x, y, **kwargs):
    return Case(layers.LowRankLinear, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("rank 2", (5, 4), (3, 5), (3, 4), rank=2),
    case("two batch axes, no bias", (4, 7), (2, 3, 4), (2, 3, 7), rank=3, use_bias=False),
]
