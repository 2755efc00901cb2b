# SPDX-License-Identifier: Apache-2.0
"""Cases of Conv: dense, strided, grouped, dilated, in one to three dimensions."""

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def case(name, args, x, y, **kwargs):
    return Case(layers.Conv, args, kwargs, x=x, y=y, name=name, oracle=numpy_layers.conv)


CASES = [
    case("stride 2, odd", (3, 5, (3, 3)), (2, 7, 6, 3), (2, 4, 3, 5), strides=2),
    case(
        "grouped",
        (6, 4, (3, 2)),
        (2, 5, 6, 6),
        (2, 3, 3, 4),
        strides=2,
        feature_group_count=2,
        use_bias=False,
    ),
    case(
        "grouped and dilated, batch 1",
        (4, 8, (3, 3)),
        (1, 7, 6, 4),
        (1, 4, 3, 8),
        strides=2,
        kernel_dilation=2,
        padding=2,
        feature_group_count=4,
    ),
    case("dilated", (3, 4, (3, 3)), (2, 7, 9, 3), (2, 3, 5, 4), kernel_dilation=2, padding="VALID"),
    case("1-D, dilated", (4, 6, 3), (2, 9, 4), (2, 5, 6), strides=2, kernel_dilation=2),
    case("3-D", (2, 4, (2, 3, 1)), (1, 4, 5, 3, 2), (1, 2, 3, 2, 4), strides=2),
]
