# SPDX-License-Identifier: Apache-2.0
"""Cases of the convolutions whose kernel is a product of smaller ones."""

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def kernel_of(module):
    """The one kernel that the factors stand for, (kh, kw, in, out)."""
    k = {name: numpy_layers.array(getattr(module, name).kernel) for name in module.parts}
    if "core" in k:
        return np.einsum("ir,yxrs,so->yxio", k["reduce"][0, 0], k["core"], k["expand"][0, 0])
    if "vertical" not in k:
        return np.einsum("yxir,ro->yxio", k["reduce"], k["expand"][0, 0])
    if "reduce" not in k:
        return np.einsum("yir,xro->yxio", k["vertical"][:, 0], k["horizontal"][0])
    vertical, horizontal = k["vertical"][:, 0, 0], k["horizontal"][0, :, 0]
    return np.einsum(
        "ir,yr,xr,ro->yxio", k["reduce"][0, 0], vertical, horizontal, k["expand"][0, 0]
    )


def same_padding(module, x):
    """One convolution with that kernel, torch's padding."""
    padding = [(k // 2, k // 2) for k in module.kernel_size]
    y = numpy_layers.convolution(x, kernel_of(module), strides=module.strides, padding=padding)
    bias = getattr(module, module.parts[-1]).bias
    return y if bias is None else y + numpy_layers.array(bias)


def dilated_valid(module, x):
    return numpy_layers.convolution(x, kernel_of(module), dilation=(1, 2))


RANKS = {
    layers.FactorizedConv: {"rank": 3},
    layers.SpatialSeparableConv: {"rank": 3},
    layers.TuckerConv: {"ranks": (2, 3)},
    layers.CPConv: {"rank": 3},
}
CASES = [
    case
    for layer, rank in RANKS.items()
    for case in (
        Case(
            layer,
            (4, 5, (3, 5), 2),
            rank,
            x=(2, 7, 6, 4),
            y=(2, 4, 3, 5),
            name="3x5, stride 2",
            oracle=same_padding,
        ),
        Case(
            layer,
            (4, 5),
            {**rank, "kernel_dilation": (1, 2), "padding": "VALID", "use_bias": False},
            x=(2, 6, 7, 4),
            y=(2, 4, 3, 5),
            name="dilated, no padding",
            oracle=dilated_valid,
        ),
    )
]
