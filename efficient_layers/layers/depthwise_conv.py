# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution: each channel has filters of its own."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from efficient_layers.layers.conv import Conv, centred


class DepthwiseConv(Conv):
    """y[b, i, c m + j] = sum_t x[b, s i + d t, c] kernel[t, 0, c m + j] + bias[c m + j].

    (*batch, *spatial, in) -> (*batch, *spatial', m in); the batch may be absent.

    A `Conv` with a group a channel and m = `multiplier` filters for each. `kernel_size` is an int
    for two dimensions (3 means 3x3), else one number an axis. Padding is torch's, (k - 1) d / 2 on
    both sides; pass `padding` for flax's "SAME", which differs under strides. Other keywords are
    those of `Conv`. Initialisation keeps the variance: 1 / prod(kernel_size).

    params = multiplier * in_features * (prod(kernel_size) + (1 if use_bias else 0))
    MACs = positions * multiplier * in_features * prod(kernel_size)

    Reference: Howard et al., *MobileNets* (arXiv 1704.04861), section 3.1, equation 3; the
    multiplier is Chollet, *Xception* (arXiv 1610.02357), and keras' `depth_multiplier`.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.DepthwiseConv(4, 3, strides=2, rngs=nnx.Rngs(0))(jnp.ones((1, 9, 9, 4))).shape
    (1, 5, 5, 4)

    Raises:
      ValueError: a size below 1; an input of wrong rank or channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        *,
        multiplier: int = 1,
        kernel_dilation: int | Sequence[int] = 1,
        padding: Any = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ):
        self._check_sizes(
            in_features=in_features, multiplier=multiplier, kernel_dilation=kernel_dilation
        )
        kernel = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
        if isinstance(kernel_dilation, int):
            kernel_dilation = (kernel_dilation,) * len(kernel)
        super().__init__(
            in_features,
            in_features * multiplier,
            kernel,
            strides,
            feature_group_count=in_features,
            kernel_dilation=kernel_dilation,
            padding=centred(kernel, kernel_dilation) if padding is None else padding,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
            **kwargs,
        )
        self.multiplier = multiplier
