# SPDX-License-Identifier: Apache-2.0
"""Cases of IntEmbedding."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def expected(module, x):
    """Entry by entry; of a byte the low half comes first, in two's complement."""
    codes, scale = np.asarray(module.codes[...]), array(module.scale)
    y = np.zeros((*x.shape, module.features))
    for place in np.ndindex(*x.shape):
        token = int(x[place])
        for i in range(module.features):
            code = int(codes[token, i] if module.bits == 8 else codes[token, i // 2])
            if module.bits == 4:
                half = code >> 4 if i % 2 else code & 15
                code = half - 16 if half > 7 else half
            y[place][i] = scale[token, 0] * code
    return y


def case(name, features, **kwargs):
    return Case(
        layers.IntEmbedding,
        (11, features),
        kwargs,
        x=(2, 5),
        y=(2, 5, features),
        name=name,
        oracle=expected,
        vocabulary=11,
    )


CASES = [case("int8", 4), case("int4", 6, bits=4), case("int4, odd", 5, bits=4)]
