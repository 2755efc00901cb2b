# SPDX-License-Identifier: Apache-2.0
"""Cases of QuantConv and IntConv."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import convolution, same
from tests.layers.numpy_quant import integers, rounded_input, rounded_weight, unpacked


def convolved(module, x, kernel):
    padding = module.padding
    if padding == "SAME":
        axes = zip(
            x.shape[1:-1], module.kernel_size, module.strides, module.kernel_dilation, strict=True
        )
        padding = [same(*axis) for axis in axes]
    return convolution(
        x,
        kernel,
        strides=module.strides,
        padding=0 if padding == "VALID" else padding,
        dilation=module.kernel_dilation,
        groups=module.feature_group_count,
    )


def with_bias(module, y):
    return y if module.bias is None else y + np.asarray(module.bias[...], np.float64)


def trained(module, x):
    kernel = rounded_weight(module, module.kernel, channel=-1, inputs=-2)
    x = rounded_input(module, x, axes=range(1, x.ndim))
    return with_bias(module, convolved(module, x, kernel))


def stored(module, x):
    """Integers where they run; scales last."""
    codes = unpacked(module.codes, module.spec.width, module.out_features)
    zero = 0 if module.zero_point is None else np.asarray(module.zero_point[...], np.int64)
    scale = np.asarray(module.scale[...], np.float64)
    factor = 1.0
    if module.spec.activations is not None:
        x, factor = integers(module, x, axes=range(1, x.ndim))
    return with_bias(module, convolved(module, x, codes - zero) * scale * factor)


def case(layer, name, args, x, y, *, oracle=trained, smooth="never", spec=None, **kwargs):
    kwargs = {"spec": layers.QuantSpec(**(spec or {})), **kwargs}
    return Case(layer, args, kwargs, x=x, y=y, name=name, oracle=oracle, smooth=smooth)


QUANT, INT = layers.QuantConv, layers.IntConv
CASES = [
    case(
        QUANT,
        "int8, noise, strides",
        (3, 4, (3, 3), 2),
        (2, 6, 5, 3),
        (2, 3, 3, 4),
        spec={"activations": "dynamic", "noise": 0.5},
    ),
    case(
        QUANT,
        "depthwise, static, asymmetric",
        (4, 4, (3, 3)),
        (2, 4, 5, 4),
        (2, 4, 5, 4),
        spec={"activations": "static", "symmetric_activations": False},
        feature_group_count=4,
        use_bias=False,
    ),
    case(
        QUANT,
        "lsq, 1 axis, dilation",
        (2, 3, 3),
        (2, 7, 2),
        (2, 3, 3),
        spec={"bits": 4, "method": "lsq"},
        kernel_dilation=2,
        padding="VALID",
    ),
    case(
        INT,
        "weights only, int4",
        (3, 5, (3, 3)),
        (2, 4, 4, 3),
        (2, 4, 4, 5),
        oracle=stored,
        smooth=True,
        spec={"bits": 4, "symmetric": False},
    ),
    case(
        INT,
        "int8 dynamic",
        (3, 4, (3, 2), 2),
        (2, 5, 5, 3),
        (2, 3, 3, 4),
        oracle=stored,
        spec={"activations": "dynamic"},
        padding=[(1, 1), (0, 1)],
    ),
    case(
        INT,
        "depthwise with multiplier",
        (3, 6, (3, 3)),
        (2, 4, 4, 3),
        (2, 4, 4, 6),
        oracle=stored,
        spec={"activations": "dynamic", "granularity": "tensor"},
        feature_group_count=3,
    ),
    case(
        INT,
        "1 x 1, groups",
        (4, 6, (1, 1)),
        (2, 3, 3, 4),
        (2, 3, 3, 6),
        oracle=stored,
        spec={"activations": "dynamic"},
        feature_group_count=2,
        use_bias=False,
    ),
]
