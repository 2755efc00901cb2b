# SPDX-License-Identifier: Apache-2.0
"""Which way weights are rounded, as a quadratic problem: E ||x W - x W_q||^2 on a fixed grid."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from efficient_layers import layers
from efficient_layers.layers.quant_spec import Codes
from efficient_layers.ops.quantize import code_range


class Problem(NamedTuple):
    """w ~ scale (code - zero), code from `least` to `most`, for inputs x; moment = E[x x^T].

    Of g groups of a convolution, d inputs (patches: taps x channels of a group) and o outputs each;
    a linear layer is one group. Everything in float64.
    """

    w: Float[np.ndarray, "g d o"]
    moment: Float[np.ndarray, "g d d"]
    scale: Float[np.ndarray, "g d o"]
    zero: Float[np.ndarray, "g d o"]
    least: int
    most: int

    def values(self, codes: Int[np.ndarray, "g d o"]) -> Float[np.ndarray, "g d o"]:
        """What `codes` stand for."""
        return self.scale * (codes - self.zero)

    def errors(self, codes: Int[np.ndarray, "g d o"]) -> Float[np.ndarray, "g o"]:
        """E (x w - x w_q)^2 of every output."""
        d = self.values(codes) - self.w
        return (d * (self.moment @ d)).sum(1)

    def better(self, codes: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """`codes`, but `nearest` for outputs that these serve better; outputs do not interact."""
        return np.where((self.errors(codes) <= self.errors(nearest))[:, None], codes, nearest)


def problem_of(layer: Any, nearest: Codes, moment: np.ndarray | None = None) -> Problem:
    """Of a `QuantLinear` or `QuantConv`; `nearest` are its codes, scale and zero point.

    Args:
      moment: E[x x^T], (d, d) or (g, d, d); None where nobody asks for errors.
    """
    kernel, groups = np.asarray(layer.kernel[...], np.float64), groups_of(layer)
    _, scale, zero = nearest
    w = matrices(kernel, groups)
    least, most = (-1, 1)
    if layer.spec.method == "affine":
        least, most = code_range(layer.spec.bits, symmetric=layer.spec.symmetric)
    return Problem(
        w=w,
        moment=np.zeros((groups, 0, 0))
        if moment is None
        else moment.reshape(groups, *w.shape[1:2] * 2),
        scale=matrices(_spread(scale, kernel.shape), groups),
        zero=np.zeros_like(w) if zero is None else matrices(_spread(zero, kernel.shape), groups),
        least=least,
        most=most,
    )


def _spread(scale: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """`ops.quantize.spread` in NumPy: nothing to compile for what is done once a layer."""
    wide = np.asarray(scale, np.float64)
    for axis, (parts, size) in enumerate(zip(scale.shape, shape, strict=True)):
        wide = np.repeat(wide, size // parts, axis)
    return wide


def groups_of(layer: Any) -> int:
    """1 for linear layers."""
    return layer.feature_group_count if isinstance(layer, layers.QuantConv) else 1


def matrices(kernel: np.ndarray, groups: int) -> np.ndarray:
    """(*kernel_size, in of a group, out) -> (groups, prod(kernel_size) in, out of a group)."""
    inputs = kernel.size // kernel.shape[-1]
    return kernel.reshape(inputs, groups, -1).swapaxes(0, 1)


def kernel_of(matrices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `matrices`."""
    return matrices.swapaxes(0, 1).reshape(shape)
