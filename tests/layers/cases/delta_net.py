# SPDX-License-Identifier: Apache-2.0
"""Cases of DeltaNet."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.cases.gated_linear_attention import normed
from tests.layers.cases.linear_attention import each_sequence, heads, join
from tests.layers.numpy_layers import linear


def unit(x):
    x = x / (1 + np.exp(-x))
    return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6)


def expected(module, x):
    def one(tokens):
        q, k, v = (heads(module, tokens, name) for name in ("query", "key", "value"))
        q, k = unit(q), unit(k)
        rate = 1 / (1 + np.exp(-linear(module.rate, tokens)))
        y = np.zeros_like(v)
        for h in range(module.num_heads):
            memory = np.zeros((module.head_dim, module.head_dim))
            for i in range(len(tokens)):
                answer = k[h, i] @ memory
                memory = memory + rate[i, h] * np.outer(k[h, i], v[h, i] - answer)
                y[h, i] = q[h, i] @ memory
        return join(module, normed(module, y))

    return each_sequence(one, x)


def case(name, args, x, **kwargs):
    return Case(layers.DeltaNet, args, kwargs, x=x, y=x, name=name, oracle=expected)


CASES = [
    case("chunks of 2", (6, 2), (2, 5, 6), chunk_size=2),
    case("wide heads, bias", (4, 2), (1, 2, 5, 4), head_dim=3, use_bias=True),
]
