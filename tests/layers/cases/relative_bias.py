# SPDX-License-Identifier: Apache-2.0
"""Cases of RelativeBias."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_attention import t5_bucket
from tests.layers.numpy_layers import array


def expected(module, x):
    *_, n, m = x.shape
    table, y = array(module.table), np.array(x)
    for i in range(n):
        for j in range(m):
            bucket = t5_bucket(j - i, module.buckets, module.max_distance, module.bidirectional)
            y[..., i, j] += table[bucket]
    return y


def alone(name, x, **kwargs):
    return Case(layers.RelativeBias, (x[-3],), kwargs, x=x, y=x, name=name, oracle=expected)


CASES = [
    alone("", (2, 3, 9, 12), buckets=8, max_distance=9),
    alone("causal", (1, 2, 12, 5), buckets=5, max_distance=10, bidirectional=False),
]
