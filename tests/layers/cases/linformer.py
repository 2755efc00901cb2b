# SPDX-License-Identifier: Apache-2.0
"""Cases of Linformer: full length, shorter."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.cases.linear_attention import attend, each_sequence, heads, join
from tests.layers.numpy_layers import array


def expected(module, x):
    def one(tokens):
        q, k, v = (heads(module, tokens, name) for name in ("query", "key", "value"))
        few_k = np.einsum("nr,hnd->hrd", array(module.key_mix)[: len(tokens)], k)
        few_v = np.einsum("nr,hnd->hrd", array(module.value_mix)[: len(tokens)], v)

        def weight(a, b):
            return np.exp(a @ b / np.sqrt(module.head_dim))

        # `attend` gives an output a query, and here there are fewer values than queries.
        y = np.zeros_like(q)
        for h, i in np.ndindex(q.shape[:2]):
            y[h, i] = attend(q[h, i : i + 1], few_k[h], few_v[h], weight, causal=False)[0]
        return join(module, y)

    return each_sequence(one, x)


def case(name, args, x, **kwargs):
    return Case(layers.Linformer, args, kwargs, x=x, y=x, name=name, oracle=expected)


CASES = [
    case("full length", (6, 2), (2, 7, 6), length=7, rank=3),
    case("shorter, wide heads", (4, 2), (1, 2, 5, 4), length=9, rank=2, head_dim=3, use_bias=False),
]
