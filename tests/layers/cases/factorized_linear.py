# SPDX-License-Identifier: Apache-2.0
"""Cases of FactorizedLinear."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case


def expected(module, x):
    reduce, expand = (np.asarray(m.kernel[...], np.float64) for m in (module.reduce, module.expand))
    bias = 0 if module.expand.bias is None else np.asarray(module.expand.bias[...], np.float64)
    return x @ reduce @ expand + bias


CASES = [
    Case(layers.FactorizedLinear, (8, 6), {"rank": 2}, x=(3, 8), y=(3, 6), oracle=expected),
    Case(
        layers.FactorizedLinear,
        (8, 6),
        {"rank": 3, "use_bias": False},
        x=(2, 3, 8),
        y=(2, 3, 6),
        name="without bias",
        oracle=expected,
    ),
]
