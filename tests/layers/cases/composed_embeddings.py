# SPDX-License-Identifier: Apache-2.0
"""Cases of the embeddings that compose or hash: QuotientRemainder, Hash, RandomProjection."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.cases.hashed_linear import MASK, mixed
from tests.layers.numpy_layers import array, linear


def words(token: int, count: int, seed: int) -> list[int]:
    """The hashes of a token, on Python's integers."""
    t = mixed((token * 0x9E3779B1 + seed) & MASK)
    return [
        mixed((t + mixed((i * 0x27D4EB2F + 0x85EBCA77 + seed) & MASK)) & MASK) for i in range(count)
    ]


def hashed(module, x):
    pool, importance = array(module.pool), array(module.importance)
    y = np.zeros((*x.shape, module.features))
    for place in np.ndindex(*x.shape):
        token = int(x[place])
        for i, h in enumerate(words(token, module.hashes, module.seed)):
            y[place] += importance[token, i] * pool[h % module.buckets]
    return y


def composed(module, x):
    quotient, remainder = array(module.quotient), array(module.remainder)
    y = np.zeros((*x.shape, module.features))
    for place in np.ndindex(*x.shape):
        q, r = divmod(int(x[place]), module.buckets)
        pair = quotient[q], remainder[r]
        y[place] = {
            "mult": np.multiply(*pair),
            "add": np.add(*pair),
            "concat": np.concatenate(pair),
        }[module.combine]
    return y


def code(token: int, size: int, seed: int) -> list[int]:
    """Two bits a number, least significant first: 01 -> 1, 10 -> -1, 00 and 11 -> 0."""
    bits = "".join(f"{h:032b}"[::-1] for h in words(token & MASK, -(-size // 16), seed))
    return [int(bits[2 * i]) - int(bits[2 * i + 1]) for i in range(size)]


def projected(module, x):
    codes = np.zeros((*x.shape, module.code_size))
    for place in np.ndindex(*x.shape):
        codes[place] = code(int(x[place]), module.code_size, module.seed)
    return linear(module.project, codes)


def case(layer, oracle, vocabulary, args, name, **kwargs):
    features = args[-1]
    return Case(
        layer,
        args,
        kwargs,
        x=(2, 5),
        y=(2, 5, features),
        name=name,
        oracle=oracle,
        vocabulary=vocabulary,
    )


CASES = [
    case(layers.HashEmbedding, hashed, 11, (11, 4), "", buckets=3),
    case(
        layers.HashEmbedding,
        hashed,
        11,
        (11, 4),
        "three, seed",
        buckets=5,
        hashes=3,
        seed=2**33 + 7,
    ),
    case(layers.QuotientRemainderEmbedding, composed, 11, (11, 4), "times", buckets=3),
    case(
        layers.QuotientRemainderEmbedding, composed, 11, (11, 4), "plus", buckets=4, combine="add"
    ),
    case(
        layers.QuotientRemainderEmbedding,
        composed,
        12,
        (12, 4),
        "side by side",
        buckets=4,
        combine="concat",
    ),
    case(layers.RandomProjectionEmbedding, projected, 2**31 - 1, (4,), "", code_size=21),
    case(
        layers.RandomProjectionEmbedding,
        projected,
        99,
        (3,),
        "seed, no bias",
        code_size=16,
        seed=5,
        use_bias=False,
    ),
]
