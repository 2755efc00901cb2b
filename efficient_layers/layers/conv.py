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

    weights = prod(kernel_size) * in_features // feature_group_count * out_features
    params = weights + (out_features if use_bias else 0)
    MACs = positions * weights

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.Conv(3, 8, (3, 3), strides=2, rngs=nnx.Rngs(0))(jnp.ones((1, 9, 9, 3))).shape
    (1, 5, 5, 8)

    Raises:
      ValueError: a size below 1; groups that do not divide the channels; an input of wrong rank or
        channels.
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
        sizes = {
            "in_features": in_features,
            "out_features": out_features,
            "kernel_size": kernel_size,
            "strides": strides,
            "kernel_dilation": kwargs.get("kernel_dilation"),
        }
        self._check_sizes(**sizes)
        if feature_group_count < 1 or in_features % feature_group_count:
            raise ValueError(
                f"{type(self).__name__} expects feature_group_count to divide in_features. "
                f"Got {feature_group_count} groups and {in_features} input features."
            )
        if out_features % feature_group_count:
            raise ValueError(
                f"{type(self).__name__} expects feature_group_count to divide out_features. "
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
        name, rank = type(self).__name__, len(self.kernel_shape) - 1
        if inputs.ndim < rank or inputs.shape[-1] != self.in_features:
            spatial = " ".join("hwd"[: rank - 1]) if rank <= 4 else f"{rank - 1} spatial"
            raise ValueError(
                f"{name} expects an input of shape (*batch, {spatial}, {self.in_features}). "
                f"Got {inputs.shape}."
            )
        if not jnp.issubdtype(inputs.dtype, jnp.inexact):
            raise TypeError(
                f"{name} expects a floating-point input. Got {inputs.dtype}: convert it first."
            )
        with jax.named_scope(name):
            return super().__call__(inputs, out_sharding)

    def _check_sizes(self, **sizes: int | Sequence[int] | None) -> None:
        """None stands for a default; a sequence holds a number an axis."""
        for argument, given in sizes.items():
            if min((given,) if isinstance(given, int) else given or (1,)) < 1:
                raise ValueError(
                    f"{type(self).__name__} expects {argument} of at least 1. Got {given}."
                )


def centred(kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Padding of torch's kind: ((k - 1) d / 2) on both sides of an axis, whatever the strides."""
    extents = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    return [(e // 2, e - e // 2) for e in extents]
