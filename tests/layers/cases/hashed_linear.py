# SPDX-License-Identifier: Apache-2.0
"""Cases of HashedLinear."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array

MASK = 2**32 - 1


def mixed(h: int) -> int:
    """xxHash32's last steps on Python's integers (github.com/Cyan4973/xxHash, specification)."""
    h = ((h ^ (h >> 15)) * 0x85EBCA77) & MASK
    h = ((h ^ (h >> 13)) * 0xC2B2AE3D) & MASK
    return h ^ (h >> 16)


def place(i: int, o: int, buckets: int, seed: int) -> tuple[int, int]:
    row = mixed((i * 0x9E3779B1 + seed) & MASK)
    column = mixed((o * 0x27D4EB2F + 0x85EBCA77 + seed) & MASK)
    h = mixed((row + column) & MASK)
    return (h >> 1) % buckets, -1 if h & 1 else 1


def kernel(module) -> np.ndarray:
    weight = array(module.weight)
    entries = np.zeros((module.in_features, module.out_features))
    for i, o in np.ndindex(*entries.shape):
        bucket, sign = place(i, o, module.buckets, module.seed)
        entries[i, o] = sign * weight[bucket]
    return entries


def expected(module, x):
    """The virtual kernel entry by entry, with Python's integers."""
    y = x @ kernel(module)
    return y if module.bias is None else y + array(module.bias)


def case(name, args, x, y, **kwargs):
    return Case(layers.HashedLinear, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("shared", (6, 5), (3, 6), (3, 5), buckets=7),
    case("seed, no bias", (4, 7), (2, 3, 4), (2, 3, 7), buckets=28, seed=2**40 + 5, use_bias=False),
]
