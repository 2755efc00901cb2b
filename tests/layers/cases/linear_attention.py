# SPDX-License-Identifier: Apache-2.0
"""Cases of LinearAttention; `attend` and `heads` serve the other variants' cases too."""

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def heads(module, x, name):
    """(n, d) through the projection `name`: (h, n, head_dim)."""
    y = numpy_layers.linear(getattr(module, name), x)
    return y.reshape(len(x), module.num_heads, -1).swapaxes(0, 1)


def join(module, y):
    """(h, n, head_dim) through the last projection."""
    return numpy_layers.linear(module.out, y.swapaxes(0, 1).reshape(y.shape[1], -1))


def each_sequence(one, x):
    """`one` on every (n, d) of x (*b, n, d)."""
    flat = x.reshape(-1, *x.shape[-2:])
    return np.stack([one(tokens) for tokens in flat]).reshape(x.shape)


def attend(q, k, v, weight, causal):
    """Query by query, key by key, with the weight of each pair."""
    y = np.zeros_like(v)
    for i in range(len(q)):
        seen = range(i + 1 if causal else len(k))
        weights = [weight(q[i], k[j]) for j in seen]
        y[i] = sum(w * v[j] for w, j in zip(weights, seen, strict=True)) / sum(weights)
    return y


def feature(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def expected(module, x):
    def one(tokens):
        q, k, v = (heads(module, tokens, name) for name in ("query", "key", "value"))
        each = [
            attend(*qkv, lambda a, b: feature(a) @ feature(b), module.causal)
            for qkv in zip(q, k, v, strict=True)
        ]
        return join(module, np.stack(each))

    return each_sequence(one, x)


def case(name, args, x, **kwargs):
    return Case(layers.LinearAttention, args, kwargs, x=x, y=x, name=name, oracle=expected)


CASES = [
    case("causal, chunks of 4", (6, 2), (2, 9, 6), causal=True, chunk_size=4),
    case("all positions, wide heads", (4, 2), (1, 2, 5, 4), head_dim=3, use_bias=False),
]
