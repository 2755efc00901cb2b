# SPDX-License-Identifier: Apache-2.0
"""Cases of ClusteredLinear, ClusteredConv and ClusteredEmbedding."""

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.cases.quant_conv import convolved, with_bias
from tests.layers.numpy_clusters import weights


def product(module, x):
    return with_bias(module, x @ weights(module))


def convolution(module, x):
    return with_bias(module, convolved(module, x, weights(module)))


def looked_up(module, x):
    return weights(module)[x.astype(int)]


def case(layer, name, args, x, y, **kwargs):
    oracle = {
        layers.ClusteredLinear: product,
        layers.ClusteredConv: convolution,
        layers.ClusteredEmbedding: looked_up,
    }[layer]
    vocabulary = args[0] if layer is layers.ClusteredEmbedding else None
    return Case(layer, args, kwargs, x=x, y=y, name=name, oracle=oracle, vocabulary=vocabulary)


LINEAR, CONV, EMBEDDING = layers.ClusteredLinear, layers.ClusteredConv, layers.ClusteredEmbedding
CASES = [
    case(LINEAR, "4 bits", (6, 5), (3, 6), (3, 5)),
    case(
        LINEAR,
        "3 bits, groups, zeros",
        (6, 8),
        (2, 3, 6),
        (2, 3, 8),
        bits=3,
        groups=2,
        keep_zeros=True,
    ),
    case(LINEAR, "8 bits, no bias", (6, 5), (3, 6), (3, 5), bits=8, use_bias=False),
    case(CONV, "5 bits, strides", (3, 4, (3, 3), 2), (2, 6, 5, 3), (2, 3, 3, 4), bits=5),
    case(
        CONV,
        "depthwise, zeros, groups",
        (4, 8, (3, 3)),
        (2, 4, 4, 4),
        (2, 4, 4, 8),
        bits=2,
        groups=4,
        keep_zeros=True,
        feature_group_count=4,
        padding=[(1, 1), (1, 1)],
        use_bias=False,
    ),
    case(
        CONV,
        "1 axis, dilation",
        (2, 3, 3),
        (2, 7, 2),
        (2, 3, 3),
        kernel_dilation=2,
        padding="VALID",
    ),
    case(EMBEDDING, "4 bits, odd", (11, 5), (2, 5), (2, 5, 5)),
    case(
        EMBEDDING,
        "6 bits, groups, zeros",
        (11, 6),
        (2, 5),
        (2, 5, 6),
        bits=6,
        groups=3,
        keep_zeros=True,
    ),
]
