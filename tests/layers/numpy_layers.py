# SPDX-License-Identifier: Apache-2.0
"""The mathematics of the common layers in NumPy, float64, from the definitions (eval mode).

Written for reading; nothing of `efficient_layers` or JAX runs here. Each takes the module (for its
numbers and settings) and the input.
"""

import itertools
from typing import Any

import numpy as np


def array(variable: Any) -> np.ndarray:
    """A variable's number in float64."""
    return np.asarray(variable[...], np.float64)


def convolution(
    x: np.ndarray,
    kernel: np.ndarray,
    *,
    strides: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
    """x (b, *s, c), kernel (*k, c / groups, o); `padding` an int or (low, high) pairs."""
    rank = kernel.ndim - 2
    strides, dilation = _each(strides, rank), _each(dilation, rank)
    pairs = [(padding, padding)] * rank if isinstance(padding, int) else list(padding)
    x = np.pad(np.asarray(x, np.float64), [(0, 0), *pairs, (0, 0)])
    spatial = zip(x.shape[1:-1], kernel.shape, dilation, strides, strict=False)
    out = [(n - (k - 1) * d - 1) // s + 1 for n, k, d, s in spatial]
    inputs, outputs = kernel.shape[-2], kernel.shape[-1] // groups
    y = np.zeros((x.shape[0], *out, kernel.shape[-1]))
    for tap in itertools.product(*map(range, kernel.shape[:rank])):
        corner = [t * d for t, d in zip(tap, dilation, strict=True)]
        steps = zip(corner, out, strides, strict=True)
        part = x[(slice(None), *(slice(a, a + (n - 1) * s + 1, s) for a, n, s in steps))]
        for g in range(groups):
            i, o = slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)
            y[..., o] += part[..., i] @ kernel[tap][:, o]
    return y


def _each(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def same(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """The (low, high) padding of "SAME" along one axis."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def conv(module: Any, x: np.ndarray) -> np.ndarray:
    """`nnx.Conv` and `layers.Conv`: padding "SAME", "VALID", an int or pairs."""
    kernel = array(module.kernel)
    rank = kernel.ndim - 2
    strides, dilation = _each(module.strides or 1, rank), _each(module.kernel_dilation or 1, rank)
    padding = module.padding
    if padding == "SAME":
        axes = zip(x.shape[1:-1], kernel.shape, strides, dilation, strict=False)
        padding = [same(*axis) for axis in axes]
    elif padding == "VALID":
        padding = 0
    elif not isinstance(padding, int):
        padding = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    y = convolution(
        x,
        kernel,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=module.feature_group_count,
    )
    return y if module.bias is None else y + array(module.bias)


def linear(module: Any, x: np.ndarray) -> np.ndarray:
    """`nnx.Linear`."""
    y = x @ array(module.kernel)
    return y if module.bias is None else y + array(module.bias)


def batch_norm(module: Any, x: np.ndarray) -> np.ndarray:
    """With the running statistics, over the last axis."""
    y = (x - array(module.mean)) / np.sqrt(array(module.var) + module.epsilon)
    y = y if module.scale is None else y * array(module.scale)
    return y if module.bias is None else y + array(module.bias)


def conv_bn_act(module: Any, x: np.ndarray) -> np.ndarray:
    """`layers.ConvBNAct`, its activation looked up by name."""
    y = batch_norm(module.bn, conv(module.conv, x))
    return y if module.act is None else activation(module.act, y)


def activation(act: Any, x: np.ndarray) -> np.ndarray:
    """`act` by its name: relu, relu6, silu, sigmoid, gelu (erf), hard_sigmoid, hard_swish."""
    from math import erf, sqrt

    gate = np.clip(x + 3, 0, 6) / 6
    known = {
        "relu": lambda: np.maximum(x, 0),
        "relu6": lambda: np.clip(x, 0, 6),
        "sigmoid": lambda: 1 / (1 + np.exp(-x)),
        "silu": lambda: x / (1 + np.exp(-x)),
        "gelu": lambda: x * np.vectorize(lambda v: 0.5 * (1 + erf(v / sqrt(2))))(x),
        "hard_sigmoid": lambda: gate,
        "hard_swish": lambda: x * gate,
        "hard_silu": lambda: x * gate,
        "tanh": lambda: np.tanh(x),
    }
    return known[getattr(act, "__name__", str(act))]()
