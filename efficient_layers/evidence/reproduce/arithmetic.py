# SPDX-License-Identifier: Apache-2.0
"""Counts of networks of which there is no family here, from the papers' own tables."""

import itertools
from collections.abc import Iterable
from math import ceil
from typing import NamedTuple


class Product(NamedTuple):
    """A convolution (side x side outputs) or, with kernel 1 and side 1, a linear layer."""

    inputs: int
    outputs: int
    kernel: int
    side: int
    groups: int = 1

    @property
    def weights(self) -> int:
        """Without biases."""
        return self.kernel**2 * (self.inputs // self.groups) * self.outputs


def weights(products: Iterable[Product]) -> int:
    """Weights, without biases."""
    return sum(p.weights for p in products)


def params(products: Iterable[Product]) -> int:
    """Weights and a bias an output."""
    return sum(p.weights + p.outputs for p in products)


def macs(products: Iterable[Product]) -> int:
    """Multiply-accumulates."""
    return sum(p.weights * p.side**2 for p in products)


# Krizhevsky et al. 2012 in Caffe's form (two groups): 227 pixels.
ALEXNET = (
    Product(3, 96, 11, 55),
    Product(96, 256, 5, 27, groups=2),
    Product(256, 384, 3, 13),
    Product(384, 384, 3, 13, groups=2),
    Product(384, 256, 3, 13, groups=2),
    Product(9216, 4096, 1, 1),
    Product(4096, 4096, 1, 1),
    Product(4096, 1000, 1, 1),
)

# Szegedy et al., arXiv 1409.4842, table 1: side, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj.
_INCEPTIONS = (
    (28, 64, 96, 128, 16, 32, 32),
    (28, 128, 128, 192, 32, 96, 64),
    (14, 192, 96, 208, 16, 48, 64),
    (14, 160, 112, 224, 24, 64, 64),
    (14, 128, 128, 256, 24, 64, 64),
    (14, 112, 144, 288, 32, 64, 64),
    (14, 256, 160, 320, 32, 128, 128),
    (7, 256, 160, 320, 32, 128, 128),
    (7, 384, 192, 384, 48, 128, 128),
)


def googlenet() -> list[Product]:
    """GoogLeNet at 224 pixels without its auxiliary classifiers."""
    products = [Product(3, 64, 7, 112), Product(64, 64, 1, 56), Product(64, 192, 3, 56)]
    c = 192
    for side, one, reduce3, three, reduce5, five, pooled in _INCEPTIONS:
        heads = [(c, one, 1), (c, reduce3, 1), (c, reduce5, 1), (c, pooled, 1)]
        tails = [(reduce3, three, 3), (reduce5, five, 5)]
        products += [Product(*shape, side) for shape in heads + tails]
        c = one + three + five + pooled
    return [*products, Product(c, 1000, 1, 1)]


_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


def caffe_squeezenet(version: str) -> list[Product]:
    """SqueezeNet v1.0 or v1.1 at 227 pixels as Caffe runs it.

    Pooling is 3/2, ceil; the last convolution of v1.0 has padding 1.
    """
    first, pooled = ((7, 96), (2, 6)) if version == "v1.0" else ((3, 64), (1, 3))
    side = (227 - first[0]) // 2 + 1
    products = [Product(3, first[1], first[0], side)]
    side, c = _pool(side), first[1]
    for index, (squeeze, expand) in enumerate(_FIRES):
        products += [
            Product(c, squeeze, 1, side),
            Product(squeeze, expand, 1, side),
            Product(squeeze, expand, 3, side),
        ]
        c = 2 * expand
        if index in pooled:
            side = _pool(side)
    return [*products, Product(c, 1000, 1, side + 2 if version == "v1.0" else side)]


def _pool(side: int) -> int:
    return ceil((side - 3) / 2) + 1


def cifar_vgg16(s: int = 1, d: int = 3) -> list[Product]:
    """VGG-16 at 32x32; s > 1: all but 1/s of the channels come from depthwise d x d operations."""
    widths = ((64, 32), (64, 32), (128, 16), (128, 16), *[(256, 8)] * 3, *[(512, 4)] * 3)
    layers = (*widths, *[(512, 2)] * 3)
    products = []
    for (i, _), (o, side) in itertools.pairwise(((3, 0), *layers)):
        own = ceil(o / s)
        products.append(Product(i, own, 3, side))
        if s > 1:
            products.append(Product(own, own * (s - 1), d, side, groups=own))
    return [*products, Product(512, 512, 1, 1), Product(512, 10, 1, 1)]
