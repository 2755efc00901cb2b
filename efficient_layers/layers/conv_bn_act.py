# SPDX-License-Identifier: Apache-2.0
"""Convolution, batch normalisation, activation."""

from collections.abc import Callable, Sequence

import jax
from flax import nnx

from efficient_layers.layers.batch_norm import BatchNorm
from efficient_layers.layers.conv import Conv
from efficient_layers.ops.activation import relu6


class ConvBNAct(nnx.Module):
    """act(BatchNorm(conv(x))), 2-D, with torch's symmetric padding."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        *,
        feature_group_count: int = 1,
        act: Callable[[jax.Array], jax.Array] | None = relu6,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        kernel_size = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
        self.conv = Conv(
            in_features,
            out_features,
            kernel_size,
            strides,
            padding=[((k - 1) // 2, k // 2) for k in kernel_size],
            feature_group_count=feature_group_count,
            use_bias=False,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn = BatchNorm(
            out_features,
            momentum=momentum,
            epsilon=epsilon,
            unbiased_running_var=True,
            dtype=dtype,
            rngs=rngs,
        )
        self.act = act

    def __call__(self, x, *, out=None):
        y = self.bn(self.conv(x))
        return y if self.act is None else self.act(y)
