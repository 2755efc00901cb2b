# SPDX-License-Identifier: Apache-2.0
"""Cases of CReLU, plain and with a scale and a shift."""

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def expected(module, x):
    positive, negative = x, -x
    if module.affine:
        scale, shift = numpy_layers.array(module.scale), numpy_layers.array(module.shift)
        c = module.in_features
        positive, negative = positive * scale[:c] + shift[:c], negative * scale[c:] + shift[c:]
    y = np.zeros((*x.shape[:-1], 2 * x.shape[-1]))
    y[..., : x.shape[-1]] = np.where(positive > 0, positive, 0)
    y[..., x.shape[-1] :] = np.where(negative > 0, negative, 0)
    return y


CASES = [
    Case(layers.CReLU, (3,), x=(2, 4, 5, 3), y=(2, 4, 5, 6), oracle=expected),
    Case(layers.CReLU, (4,), {"affine": True}, x=(3, 4), y=(3, 8), name="affine", oracle=expected),
]
