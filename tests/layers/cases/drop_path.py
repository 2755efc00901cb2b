# SPDX-License-Identifier: Apache-2.0
"""Cases of DropPath: in eval mode it is the identity."""

from efficient_layers import layers
from tests.layers.case import Case


def expected(module, x):
    return x


CASES = [
    Case(layers.DropPath, (0.5,), {}, x=(4, 3, 2), y=(4, 3, 2), oracle=expected),
    Case(
        layers.DropPath,
        (0.3,),
        {"mode": "batch"},
        x=(4, 3),
        y=(4, 3),
        name="batch",
        oracle=expected,
    ),
]
