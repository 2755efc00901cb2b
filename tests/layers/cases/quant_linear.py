# SPDX-License-Identifier: Apache-2.0
"""Cases of QuantLinear and IntLinear."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_quant import integers, rounded_input, rounded_weight, unpacked


def trained(module, x):
    kernel = rounded_weight(module, module.kernel, channel=1, inputs=0)
    y = rounded_input(module, x, axes=(-1,)) @ kernel
    return y if module.bias is None else y + np.asarray(module.bias[...], np.float64)


def stored(module, x):
    """Codes minus zero point times scale, a group of inputs at a time, integers where they run."""
    codes = unpacked(module.codes, module.spec.width, module.out_features)
    zero = 0 if module.zero_point is None else np.asarray(module.zero_point[...], np.int64)
    scale = np.asarray(module.scale[...], np.float64)
    groups = scale.shape[0]
    zero = np.broadcast_to(zero, scale.shape)
    part = codes.shape[0] // groups
    rows = x.reshape(-1, x.shape[-1])
    factor = 1.0
    if module.spec.activations is not None:
        rows, factor = integers(module, rows, axes=(-1,))
    y = np.zeros((len(rows), module.out_features))
    for g in range(groups):
        chosen = slice(g * part, (g + 1) * part)
        y += rows[:, chosen] @ (codes[chosen] - zero[g]) * scale[g]
    y = (y * factor).reshape(*x.shape[:-1], module.out_features)
    return y if module.bias is None else y + np.asarray(module.bias[...], np.float64)


def case(layer, name, args, x, y, *, oracle=trained, smooth="never", use_bias=True, **spec):
    kwargs = {"spec": layers.QuantSpec(**spec), "use_bias": use_bias}
    return Case(layer, args, kwargs, x=x, y=y, name=name, oracle=oracle, smooth=smooth)


QUANT, INT = layers.QuantLinear, layers.IntLinear
CASES = [
    case(QUANT, "int8, noise", (6, 4), (3, 6), (3, 4), activations="dynamic", noise=0.5),
    case(
        QUANT,
        "int4 groups, static, asymmetric",
        (8, 5),
        (2, 3, 8),
        (2, 3, 5),
        bits=4,
        granularity="group",
        group_size=4,
        symmetric=False,
        activations="static",
        symmetric_activations=False,
    ),
    case(QUANT, "lsq", (6, 4), (3, 6), (3, 4), bits=4, method="lsq", activations="static"),
    case(QUANT, "binary", (6, 4), (3, 6), (3, 4), bits=1, method="binary", use_bias=False),
    case(
        QUANT,
        "ternary, tensor",
        (6, 4),
        (3, 6),
        (3, 4),
        bits=2,
        method="ternary",
        granularity="tensor",
    ),
    case(INT, "weights only", (6, 5), (3, 6), (3, 5), oracle=stored, smooth=True, bits=4),
    case(
        INT,
        "groups, asymmetric, weights only",
        (16, 5),
        (2, 2, 16),
        (2, 2, 5),
        oracle=stored,
        smooth=True,
        bits=4,
        granularity="group",
        group_size=8,
        symmetric=False,
    ),
    case(INT, "int8 dynamic", (6, 4), (3, 6), (3, 4), oracle=stored, activations="dynamic"),
    case(
        INT,
        "int4 groups dynamic, asymmetric",
        (16, 5),
        (1, 16),
        (1, 5),
        oracle=stored,
        bits=3,
        granularity="group",
        group_size=8,
        symmetric=False,
        activations="dynamic",
        symmetric_activations=False,
        use_bias=False,
    ),
    case(
        INT, "binary", (6, 4), (3, 6), (3, 4), oracle=stored, smooth=True, bits=1, method="binary"
    ),
]
