# SPDX-License-Identifier: Apache-2.0
"""Convolution, batch normalisation, activation: the unit that mobile networks are made of."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers.batch_norm import BatchNorm
from efficient_layers.layers.conv import Conv, centred
from efficient_layers.ops.activation import relu6


class ConvBNAct(nnx.Module):
    """y = act(BatchNorm(conv(x))), in two dimensions, without a convolution bias.

    Conventions are torch's, so that its weights load as they are: padding ((k - 1) d / 2) on both
    sides (flax's "SAME" differs under strides; pass `padding` for it), momentum 0.9 (torch: 0.1),
    epsilon 1e-5, unbiased running variance. Children: `conv`, `bn`. `act=None` leaves the
    activation out.

    weights = prod(conv.kernel_size) * in_features // feature_group_count * out_features
    params = weights + 2 * out_features
    MACs = h2 * w2 * weights

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.ConvBNAct(3, 8, strides=2, rngs=nnx.Rngs(0))(jnp.ones((1, 9, 9, 3))).shape
    (1, 5, 5, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        *,
        feature_group_count: int = 1,
        kernel_dilation: int = 1,
        padding: Any = None,
        act: Callable[[jax.Array], jax.Array] | None = relu6,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kernel = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
        if padding is None:
            padding = centred(kernel, (kernel_dilation,) * len(kernel))
        self.conv = Conv(
            in_features,
            out_features,
            kernel,
            strides,
            padding=padding,
            kernel_dilation=kernel_dilation,
            feature_group_count=feature_group_count,
            use_bias=False,
            kernel_init=nnx.initializers.variance_scaling(
                2.0 * feature_group_count, "fan_out", "normal"
            ),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.bn = BatchNorm(
            out_features,
            momentum=momentum,
            epsilon=epsilon,
            unbiased_running_var=True,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.act = act

    def __call__(
        self, x: Float[Array, "*b h w c"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b h2 w2 o"]:
        """`out` receives "conv", "bn" and, where there is an activation, "act"."""
        named = {"conv": self.conv(x)}
        y = named["bn"] = self.bn(named["conv"])
        if self.act is not None:
            y = named["act"] = self.act(y)
        if out is not None:
            out.update(named)
        return y
