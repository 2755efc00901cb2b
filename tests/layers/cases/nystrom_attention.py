# SPDX-License-Identifier: Apache-2.0
"""Cases of NystromAttention: whole segments with the skip, a shorter last segment."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.cases.linear_attention import each_sequence, heads, join
from tests.layers.numpy_layers import array


def softmax(q, k):
    weights = np.exp(q @ k.T / np.sqrt(q.shape[-1]))
    return weights / weights.sum(-1, keepdims=True)


def means(x, count):
    size = -(-len(x) // count)
    return np.stack([x[i : i + size].mean(0) for i in range(0, len(x), size)])


def inverse(a, iterations):
    z = a.T / np.abs(a).sum(0).max()
    one = np.eye(len(a))
    for _ in range(iterations):
        z = z @ (13 * one - a @ z @ (15 * one - a @ z @ (7 * one - a @ z))) / 4
    return z


def skip(module, h, v):
    taps = array(module.conv)[:, h]
    padded = np.pad(v, [(len(taps) // 2,) * 2, (0, 0)])
    return sum(tap * padded[t : t + len(v)] for t, tap in enumerate(taps))


def expected(module, x):
    def head(h, q, k, v):
        few_q, few_k = means(q, module.num_landmarks), means(k, module.num_landmarks)
        middle = inverse(softmax(few_q, few_k), module.iterations)
        y = softmax(q, few_k) @ middle @ softmax(few_q, k) @ v
        return y if module.conv is None else y + skip(module, h, v)

    def one(tokens):
        q, k, v = (heads(module, tokens, name) for name in ("query", "key", "value"))
        each = [head(h, q[h], k[h], v[h]) for h in range(module.num_heads)]
        return join(module, np.stack(each))

    return each_sequence(one, x)


def case(name, args, x, **kwargs):
    return Case(layers.NystromAttention, args, kwargs, x=x, y=x, name=name, oracle=expected)


CASES = [
    case("skip", (6, 2), (2, 8, 6), num_landmarks=4, kernel_size=3, iterations=2),
    case("short last segment", (4, 2), (1, 2, 7, 4), num_landmarks=3, head_dim=3),
]
