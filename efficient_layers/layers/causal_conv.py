# SPDX-License-Identifier: Apache-2.0
"""Causal convolution over a sequence: no output sees a later input."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from efficient_layers.layers.conv import Conv


class CausalConv(Conv):
    """y[b, i, o] = sum_{t, c} x[b, s i - d (k - 1 - t), c] kernel[t, c, o] + bias[o].

    (*batch, n, in) -> (*batch, ceil(n / strides), out); positions before the first count as zeros.

    A one-dimensional `Conv` with all of its padding, d (k - 1), on the left, and its keywords.
    `feature_group_count=in_features` is the depthwise form of state-space and recurrent blocks.
    Output i depends on the (k - 1) d + 1 inputs up to s i, and on no later one. The kernel keeps
    the variance (1 / inputs).

    weights = kernel_size[0] * in_features // feature_group_count * out_features
    params = weights + (out_features if use_bias else 0)
    MACs = positions * weights

    Reference: van den Oord et al., *WaveNet* (arXiv 1609.03499), section 2.1; Bai et al., *An
    Empirical Evaluation of Generic Convolutional and Recurrent Networks* (arXiv 1803.01271),
    sections 3.1 and 3.2.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.CausalConv(4, 8, 3, kernel_dilation=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 9, 4))).shape
    (1, 9, 8)

    Raises:
      ValueError: a size below 1; groups that do not divide the channels; an input of wrong rank or
        channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        strides: int = 1,
        *,
        kernel_dilation: int = 1,
        feature_group_count: int = 1,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ):
        super().__init__(
            in_features,
            out_features,
            (kernel_size,),
            strides,
            padding=[((kernel_size - 1) * kernel_dilation, 0)],
            kernel_dilation=kernel_dilation,
            feature_group_count=feature_group_count,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
            **kwargs,
        )
