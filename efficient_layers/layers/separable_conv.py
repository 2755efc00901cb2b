# SPDX-License-Identifier: Apache-2.0
"""Depthwise-separable convolution: first positions are mixed, then channels."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers.batch_norm import BatchNorm
from efficient_layers.layers.conv import Conv
from efficient_layers.layers.depthwise_conv import DepthwiseConv


class SeparableConv(nnx.Module):
    """y = act(bn(pointwise(depthwise(x)))): a k x k `DepthwiseConv`, then a 1x1 `Conv`.

    `between=True` (MobileNetV1) also puts a BatchNorm and `act` after the depthwise convolution;
    False (Xception, where nothing between was better) does not. `norm=False` leaves BatchNorm out
    and gives `pointwise` a bias. `act=None` is no activation. Padding is torch's, (k - 1) d / 2 on
    both sides. Kernels keep the variance (1 / inputs).

    hidden = multiplier * in_features
    weights = hidden * (prod(depthwise.kernel_size) + out_features)
    norms = 2 * (out_features + (hidden if between else 0))
    params = weights + (norms if norm else out_features)
    MACs = h2 * w2 * weights

    Reference: Chollet, *Xception* (arXiv 1610.02357), sections 1.2 and 4.7; Howard et al.,
    *MobileNets* (arXiv 1704.04861), section 3.1, figure 3.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.SeparableConv(3, 8, strides=2, rngs=nnx.Rngs(0))(jnp.ones((1, 9, 9, 3))).shape
    (1, 5, 5, 8)

    Raises:
      ValueError: a size below 1; an input of wrong rank or channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        *,
        multiplier: int = 1,
        kernel_dilation: int | Sequence[int] = 1,
        padding: Any = None,
        norm: bool = True,
        act: Callable[[jax.Array], jax.Array] | None = None,
        between: bool = False,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        settings: dict[str, Any] = {"momentum": momentum, "epsilon": epsilon, **types}
        hidden = multiplier * in_features
        self.depthwise = DepthwiseConv(
            in_features,
            kernel_size,
            strides,
            multiplier=multiplier,
            kernel_dilation=kernel_dilation,
            padding=padding,
            use_bias=False,
            **types,
        )
        rank = len(self.depthwise.kernel_size)
        self.pointwise = Conv(hidden, out_features, (1,) * rank, use_bias=not norm, **types)
        self.bn_between: BatchNorm | None = nnx.data(None)
        self.bn: BatchNorm | None = nnx.data(None)
        if norm and between:
            self.bn_between = BatchNorm(hidden, unbiased_running_var=True, **settings)
        if norm:
            self.bn = BatchNorm(out_features, unbiased_running_var=True, **settings)
        self.act = act
        self.between = between

    def __call__(
        self, x: Float[Array, "*b h w c"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b h2 w2 o"]:
        """`out` receives "depthwise" (with what is between) and "pointwise" (with what follows)."""
        with jax.named_scope("SeparableConv"):
            y = self.depthwise(x)
            if self.bn_between is not None:
                y = self.bn_between(y)
            if self.between and self.act is not None:
                y = self.act(y)
            named = {"depthwise": y}
            y = self.pointwise(y)
            if self.bn is not None:
                y = self.bn(y)
            if self.act is not None:
                y = self.act(y)
            named["pointwise"] = y
        if out is not None:
            out.update(named)
        return y
