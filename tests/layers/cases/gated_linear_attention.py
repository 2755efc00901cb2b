# SPDX-License-Identifier: Apache-2.0
"""Cases of GatedLinearAttention."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.cases.linear_attention import each_sequence, heads, join
from tests.layers.numpy_layers import array, linear


def normed(module, y):
    """The RMSNorm of each head's outputs."""
    mean = (y * y).mean(-1, keepdims=True)
    return y / np.sqrt(mean + module.norm.epsilon) * array(module.norm.scale)


def expected(module, x):
    def one(tokens):
        q, k, v, gate = (heads(module, tokens, s) for s in ("query", "key", "value", "gate"))
        logits = linear(module.decay_up, linear(module.decay_down, tokens))
        decay = (1 / (1 + np.exp(-logits))) ** (1 / module.temperature)
        decay = decay.reshape(len(tokens), module.num_heads, -1)
        y = np.zeros_like(v)
        for h in range(module.num_heads):
            state = np.zeros((module.head_dim, module.head_dim))
            for i in range(len(tokens)):
                state = decay[i, h][:, None] * state + np.outer(k[h, i], v[h, i])
                y[h, i] = q[h, i] @ state
        return join(module, normed(module, y) * gate / (1 + np.exp(-gate)))

    return each_sequence(one, x)


def case(name, args, x, **kwargs):
    return Case(layers.GatedLinearAttention, args, kwargs, x=x, y=x, name=name, oracle=expected)


CASES = [
    case("chunks of 2", (6, 2), (2, 5, 6), chunk_size=2, decay_rank=3, temperature=2.0),
    case("wide heads, bias", (4, 2), (1, 2, 5, 4), head_dim=3, use_bias=True),
]
