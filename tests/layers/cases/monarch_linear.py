# SPDX-License-Identifier: Apache-2.0
"""Cases of MonarchLinear."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def expected(module, x):
    """As the paper writes it: dense matrices P L P^T R, entries placed one by one.

    R stacks what each block of the input sends to each block of the output; P^T gathers it by
    output block; L works within those; the last P spreads a block of the output over a stride.
    """
    first, second = array(module.first), array(module.second)
    k, p, c = first.shape
    q, r = second.shape[2], module.rank
    block_r, block_l = np.zeros((k * p, k * c)), np.zeros((k * c, k * q))
    inner, outer = np.zeros((k * c, k * c)), np.zeros((k * q, k * q))
    for b in range(k):
        block_r[b * p : (b + 1) * p, b * c : (b + 1) * c] = first[b]
        block_l[b * c : (b + 1) * c, b * q : (b + 1) * q] = second[b]
        for j in range(k):
            for t in range(r):
                inner[b * c + j * r + t, j * c + b * r + t] = 1
        for n in range(q):
            outer[b * q + n, n * k + b] = 1
    y = x @ block_r @ inner @ block_l @ outer
    return y if module.bias is None else y + array(module.bias)


def case(name, args, x, y, **kwargs):
    return Case(layers.MonarchLinear, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("square", (9, 9), (2, 9), (2, 9), blocks=3),
    case(
        "wider, rank 2, no bias", (6, 10), (2, 3, 6), (2, 3, 10), blocks=2, rank=2, use_bias=False
    ),
    case("narrower", (12, 6), (1, 12), (1, 6), blocks=3),
]
