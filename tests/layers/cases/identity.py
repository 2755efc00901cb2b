# SPDX-License-Identifier: Apache-2.0
"""Cases of Identity."""

from efficient_layers import layers
from tests.layers.case import Case


def expected(module, x):
    return x


CASES = [Case(layers.Identity, (), {}, x=(4, 3, 2), y=(4, 3, 2), oracle=expected)]
