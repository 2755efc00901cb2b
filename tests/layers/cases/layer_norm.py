# SPDX-License-Identifier: Apache-2.0
"""Cases of LayerNorm and RMSNorm: a row at a time."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def scaled(module, y):
    y = y if module.scale is None else y * array(module.scale)
    bias = getattr(module, "bias", None)
    return y if bias is None else y + array(bias)


def layer_norm(module, x):
    y = np.empty_like(x)
    for row in np.ndindex(x.shape[:-1]):
        y[row] = (x[row] - x[row].mean()) / np.sqrt(x[row].var() + module.epsilon)
    return scaled(module, y)


def rms_norm(module, x):
    y = np.empty_like(x)
    for row in np.ndindex(x.shape[:-1]):
        y[row] = x[row] / np.sqrt((x[row] ** 2).sum() / x.shape[-1] + module.epsilon)
    return scaled(module, y)


CASES = [
    Case(layers.LayerNorm, (6,), {}, x=(2, 3, 6), y=(2, 3, 6), oracle=layer_norm),
    Case(
        layers.LayerNorm,
        (5,),
        {"use_bias": False, "epsilon": 1e-2},
        x=(3, 5),
        y=(3, 5),
        name="no bias",
        oracle=layer_norm,
    ),
    Case(layers.RMSNorm, (6,), {}, x=(2, 3, 6), y=(2, 3, 6), oracle=rms_norm),
    Case(
        layers.RMSNorm,
        (5,),
        {"use_scale": False},
        x=(3, 5),
        y=(3, 5),
        name="no scale",
        oracle=rms_norm,
    ),
]
