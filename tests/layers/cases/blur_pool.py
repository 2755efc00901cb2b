# SPDX-License-Identifier: Apache-2.0
"""Cases of BlurPool: odd and even kernels and sizes, one channel."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case

PASCAL = {2: [1, 1], 3: [1, 2, 1], 5: [1, 4, 6, 4, 1]}


def expected(module, x):
    """Rows, then columns: the filter is a product."""
    taps = np.array(PASCAL[module.kernel_size], np.float64)
    taps /= taps.sum()
    for axis in (1, 2):
        low = (module.strides + module.kernel_size - 2) // 2
        pads = [(0, 0)] * 4
        pads[axis] = (low, low)
        padded = np.moveaxis(np.pad(x, pads, mode=module.pad_mode), axis, 0)
        starts = range(0, len(padded) - len(taps) + 1, module.strides)
        rows = [np.tensordot(taps, padded[i : i + len(taps)], 1) for i in starts]
        x = np.moveaxis(np.stack(rows), 0, axis)
    return x


def case(name, args, x, y, **kwargs):
    return Case(layers.BlurPool, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("Tri-3", (), (2, 7, 6, 3), (2, 4, 3, 3)),
    case("Bin-5", (5,), (1, 8, 9, 1), (1, 4, 5, 1)),
    case("Rect-2, zeros", (2, 2), (2, 5, 6, 2), (2, 3, 4, 2), pad_mode="constant"),
    case("stride 3", (3, 3), (2, 9, 7, 2), (2, 4, 3, 2), pad_mode="edge"),
]
