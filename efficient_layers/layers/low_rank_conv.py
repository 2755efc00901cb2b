# SPDX-License-Identifier: Apache-2.0
"""What convolutions whose kernel is a product of smaller ones share: the chain, axes, settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers.conv import centred

Sizes = int | Sequence[int]


class LowRankConv(nnx.Module):
    """What they share: `parts` one after the other, the last of them with the bias."""

    parts: tuple[str, ...] = ()

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 o"]:
        """(*batch, h, w, in) -> (*batch, h2, w2, out); the batch may be absent."""
        with jax.named_scope(type(self).__name__):
            for name in self.parts:
                x = getattr(self, name)(x)
            return x

    @classmethod
    def _like(cls, conv: nnx.Conv, factors: NamedTuple, **ranks: Any) -> Self:
        """A layer with the settings and the bias of `conv`, its kernels from `factors`, by name."""

        def made() -> Any:
            return cls(
                conv.in_features,
                conv.out_features,
                conv.kernel_size,
                conv.strides or 1,
                kernel_dilation=conv.kernel_dilation or 1,
                padding=conv.padding,
                use_bias=conv.bias is not None,
                dtype=conv.dtype,
                param_dtype=conv.param_dtype,
                rngs=nnx.Rngs(0),
                **ranks,
            )  # type: ignore[call-arg]

        layer = nnx.eval_shape(made)  # every parameter is replaced: none is drawn
        for name, kernel in factors._asdict().items():
            getattr(layer, name).kernel = nnx.Param(jnp.asarray(kernel, conv.param_dtype))
        if conv.bias is not None:
            getattr(layer, cls.parts[-1]).bias = nnx.Param(jnp.array(conv.bias[...]))
        return layer


@dataclass(frozen=True)
class Axes:
    """Settings of a convolution, a pair each; padding is a name or (low, high) pairs."""

    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    kernel_dilation: tuple[int, int]
    padding: Any

    @classmethod
    def of(cls, kernel_size: Sizes, strides: Any, kernel_dilation: Any, padding: Any) -> "Axes":
        """From what `Conv` takes; padding None is torch's."""
        kernel, dilation = _pair(kernel_size), _pair(kernel_dilation)
        if padding is None:
            padding = centred(kernel, dilation)
        if not isinstance(padding, str):
            padding = tuple(_pair(low_high) for low_high in _pair(padding))
        return cls(kernel, _pair(strides), dilation, padding)

    def along(self, axis: int) -> dict[str, Any]:
        """The settings along `axis`, neutral ones along the other."""

        def part(pair: Any, neutral: Any) -> tuple:
            return (pair[0], neutral) if axis == 0 else (neutral, pair[1])

        return {
            "kernel_size": part(self.kernel_size, 1),
            "strides": part(self.strides, 1),
            "kernel_dilation": part(self.kernel_dilation, 1),
            # A name ("SAME", "VALID", ...) pads an axis of kernel size 1 by nothing.
            "padding": self.padding
            if isinstance(self.padding, str)
            else part(self.padding, (0, 0)),
        }

    def whole(self) -> dict[str, Any]:
        return {
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "kernel_dilation": self.kernel_dilation,
            "padding": self.padding,
        }


def _pair(value: Any) -> tuple:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2:
        raise ValueError(f"A low-rank convolution has two dimensions. Got {value} for their sizes.")
    return pair


def kernel_of(conv: nnx.Conv) -> np.ndarray:
    """The kernel in float64, of a convolution that `layer` can stand for."""
    if not isinstance(conv, nnx.Conv):
        raise TypeError(f"from_conv expects an nnx.Conv. Got {type(conv).__name__}.")
    kernel = np.asarray(conv.kernel[...], np.float64)
    dilated = conv.input_dilation not in (None, 1, (1, 1))
    if kernel.ndim != 4 or conv.feature_group_count != 1 or dilated or conv.mask is not None:
        raise ValueError(
            "from_conv expects a two-dimensional convolution without groups, input dilation and "
            f"mask. Got a kernel of {kernel.shape}, {conv.feature_group_count} groups, "
            f"input_dilation={conv.input_dilation}, mask={conv.mask}."
        )
    return kernel
