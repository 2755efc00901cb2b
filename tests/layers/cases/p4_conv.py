# SPDX-License-Identifier: Apache-2.0
"""Cases of P4Conv: from an image, between maps, strided, without padding."""

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def expected(module, x):
    """Orientation s: turn the input back s times, convolve with the kernel as it is, turn forth.

    x: b h w r c, square maps wherever strides skip positions.
    """
    kernel = numpy_layers.array(module.kernel)  # k k r i o
    taps = kernel.reshape(*kernel.shape[:2], -1, kernel.shape[-1])
    parts = []
    for s in range(4):
        back = np.rot90(x, -s, axes=(1, 2))
        back = np.roll(back, -s, axis=3) if x.shape[3] == 4 else back
        y = numpy_layers.convolution(
            back.reshape(*back.shape[:3], -1), taps, strides=module.strides, padding=module.padding
        )
        parts.append(np.rot90(y, s, axes=(1, 2)))
    y = np.stack(parts, axis=3)
    return y if module.bias is None else y + numpy_layers.array(module.bias)


def case(name, args, x, y, **kwargs):
    return Case(layers.P4Conv, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("lifting", (3, 2), (2, 5, 6, 1, 3), (2, 5, 6, 4, 2), in_orientations=1),
    case("between maps", (2, 3), (1, 5, 4, 4, 2), (1, 5, 4, 4, 3)),
    case("stride 2", (2, 2, 3, 2), (2, 7, 5, 4, 2), (2, 4, 3, 4, 2), use_bias=False),
    case("even kernel", (1, 2, 2), (2, 5, 5, 4, 1), (2, 4, 4, 4, 2), padding=0),
]
