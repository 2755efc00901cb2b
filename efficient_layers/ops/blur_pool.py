# SPDX-License-Identifier: Apache-2.0
"""Downsampling behind a low-pass filter, as one depthwise convolution with a fixed kernel."""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from efficient_layers.ops.conv import conv_general_dilated

PadMode = Literal["reflect", "edge", "constant"]


def binomial(size: int) -> np.ndarray:
    """Row `size` of Pascal's triangle divided by its sum: (1, 2, 1) / 4 for 3."""
    return np.array([math.comb(size - 1, k) for k in range(size)]) / 2.0 ** (size - 1)


def blur_pool(
    x: Float[Array, "*b h w c"],
    kernel_size: int = 3,
    strides: int = 2,
    pad_mode: PadMode = "reflect",
) -> Float[Array, "*b h2 w2 c"]:
    """x * binomial(k) along h and along w, at every `strides`-th position.

    The border is padded by (strides + kernel_size - 2) // 2 on every side, as `pad_mode` says. One
    convolution with k x k taps: for k = 3 and stride 2, a pass along h and one along w have as many
    products (the first keeps all columns), and write an array in between.
    """
    before = (strides + kernel_size - 2) // 2
    *batch, h, w, c = x.shape
    x = x.reshape(math.prod(batch), h, w, c)
    x = jnp.pad(x, ((0, 0), (before, before), (before, before), (0, 0)), mode=pad_mode)
    taps = np.outer(binomial(kernel_size), binomial(kernel_size))[..., None, None]
    kernel = jnp.broadcast_to(jnp.asarray(taps, x.dtype), (kernel_size, kernel_size, 1, c))
    y = conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=c,
    )
    return y.reshape(*batch, *y.shape[1:])
