# SPDX-License-Identifier: Apache-2.0
"""Convolution layer: a drop-in replacement of `flax.nnx.Conv` that is fast on every platform."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.ops.conv import conv_general_dilated as fast_convolution


class Conv(nnx.Conv):
    """y[b, i, o] = sum_{t, c} x[b, s i + d t, c] kernel[t, c, o] + bias[o].

    `flax.nnx.Conv` with the convolution of `efficient_layers.ops`: same constructor, parameter
    names, shapes, padding modes and dtypes, so state of either restores into the other, and every
    transform works (grad, jvp, jacfwd, hessian, vmap over inputs and weights). What differs:
    integer inputs raise instead of being cast. A `conv_general_dilated` of your own is called as
    flax calls it.

    params = prod(kernel_size) (in / groups) out + out (bias). MACs = output positions x params
    without bias.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.Conv(3, 8, (3, 3), strides=2, rngs=nnx.Rngs(0))(jnp.ones((1, 9, 9, 3))).shape
    (1, 5, 5, 8)

    Raises:
      ValueError: groups that do not divide the channels; an input of wrong rank or channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = 1,
        *,
        feature_group_count: int = 1,
        conv_general_dilated: Callable = fast_convolution,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ):
        if feature_group_count < 1 or in_features % feature_group_count:
            raise ValueError(
                "Conv expects feature_group_count to divide in_features. "
                f"Got {feature_group_count} groups and {in_features} input features."
            )
        if out_features % feature_group_count:
            raise ValueError(
                "Conv expects feature_group_count to divide out_features. "
                f"Got {feature_group_count} groups and {out_features} output features."
            )
        super().__init__(
            in_features,
            out_features,
            kernel_size,
            strides,
            feature_group_count=feature_group_count,
            conv_general_dilated=conv_general_dilated,
            rngs=rngs,
            **kwargs,
        )

    def __call__(
        self, inputs: Float[Array, "..."], out_sharding: Any = None
    ) -> Float[Array, "..."]:
        """(*batch, *spatial, in) -> (*batch, *spatial', out); the batch may be absent."""
        rank = len(self.kernel_shape) - 1
        if inputs.ndim < rank or inputs.shape[-1] != self.in_features:
            spatial = " ".join("hwd"[: rank - 1]) if rank <= 4 else f"{rank - 1} spatial"
            raise ValueError(
                f"Conv expects an input of shape (*batch, {spatial}, {self.in_features}). "
                f"Got {inputs.shape}."
            )
        if not jnp.issubdtype(inputs.dtype, jnp.inexact):
            raise TypeError(
                f"Conv expects a floating-point input. Got {inputs.dtype}: convert it first."
            )
        with jax.named_scope("Conv"):
            return super().__call__(inputs, out_sharding)
