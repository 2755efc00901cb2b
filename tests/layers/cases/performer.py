# SPDX-License-Identifier: Apache-2.0
"""Cases of Performer."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.cases.linear_attention import attend, each_sequence, heads, join
from tests.layers.numpy_layers import array


def expected(module, x):
    rows = array(module.projection)

    def feature(vector):
        vector = vector * module.head_dim**-0.25
        return np.array([np.exp(row @ vector - vector @ vector / 2) for row in rows])

    def one(tokens):
        q, k, v = (heads(module, tokens, name) for name in ("query", "key", "value"))
        each = [
            attend(*qkv, lambda a, b: feature(a) @ feature(b), module.causal)
            for qkv in zip(q, k, v, strict=True)
        ]
        return join(module, np.stack(each))

    return each_sequence(one, x)


def case(name, args, x, **kwargs):
    return Case(layers.Performer, args, kwargs, x=x, y=x, name=name, oracle=expected)


CASES = [
    case("causal", (6, 2), (2, 7, 6), num_features=5, causal=True, chunk_size=3),
    case("all positions, default features", (4, 1), (2, 5, 4)),
]
