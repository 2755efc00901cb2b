# SPDX-License-Identifier: Apache-2.0
"""Cases of BatchNorm: on images and on vectors."""

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case

oracle = numpy_layers.batch_norm

CASES = [
    Case(layers.BatchNorm, (5,), x=(2, 7, 6, 5), y=(2, 7, 6, 5), oracle=oracle),
    Case(
        layers.BatchNorm,
        (6,),
        {"use_bias": False, "epsilon": 1e-3},
        x=(4, 6),
        y=(4, 6),
        name="vectors",
        oracle=oracle,
    ),
]
