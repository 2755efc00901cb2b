# SPDX-License-Identifier: Apache-2.0
"""Cases of MixtureOfExperts."""

import math

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def network(module, i, token):
    """Expert i on one token."""
    h = token @ array(module.up)[i]
    h = h if module.up_bias is None else h + array(module.up_bias)[i]
    y = np.maximum(h, 0) @ array(module.down)[i]
    return y if module.down_bias is None else y + array(module.down_bias)[i]


def one_sequence(module, tokens):
    """Choice by choice, token by token: to the expert if it has room, to nobody otherwise."""
    n = len(tokens)
    logits = tokens @ array(module.router)
    gates = np.exp(logits - logits.max(-1, keepdims=True))
    gates /= gates.sum(-1, keepdims=True)
    ranked = np.argsort(-gates, -1)[:, : module.top_k]
    room = [min(n, max(1, math.ceil(module.capacity_factor * module.top_k * n / module.experts)))]
    room *= module.experts
    y = np.zeros_like(tokens)
    for choice in range(module.top_k):
        for t in range(n):
            i = ranked[t, choice]
            if room[i] == 0:
                continue
            room[i] -= 1
            share = gates[t, ranked[t]].sum() if module.top_k > 1 else 1
            y[t] += gates[t, i] / share * network(module, i, tokens[t])
    return y


def expected(module, x):
    flat = x.reshape(-1, *x.shape[-2:])
    return np.stack([one_sequence(module, tokens) for tokens in flat]).reshape(x.shape)


def case(name, args, x, **kwargs):
    return Case(layers.MixtureOfExperts, args, kwargs, x=x, y=x, name=name, oracle=expected)


FEW = {"experts": 4, "top_k": 1, "capacity_factor": 0.5}
CASES = [
    case("top 2, jitter", (4, 6), (2, 5, 4), experts=3, jitter=0.1),
    case(
        "top 1, drops, no bias",
        (4, 3),
        (2, 2, 7, 4),
        experts=4,
        top_k=1,
        capacity_factor=0.5,
        use_bias=False,
    ),
    case("top 3, drops", (3, 4), (1, 9, 3), experts=4, top_k=3, capacity_factor=0.7),
]
