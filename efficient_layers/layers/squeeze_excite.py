# SPDX-License-Identifier: Apache-2.0
"""Squeeze-and-excitation: every channel is scaled by what the whole image says about it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers.conv import Conv


class SqueezeExcite(nnx.Module):
    """y = x gate(expand(act(reduce(mean of x over h and w)))): one gate a channel and image.

    `reduce` and `expand` are 1x1 convolutions with bias, to `rd_features` channels (by default
    round(rd_ratio x in_features)) and back. Their kernels keep the variance (1 / inputs).

    params = 2 * in_features * rd_features + in_features + rd_features
    MACs = 2 * in_features * rd_features

    Reference: Hu et al., *Squeeze-and-Excitation Networks* (arXiv 1709.01507), section 3; names and
    rounding are timm's for EfficientNet and MobileNetV3 (`gate=ops.hard_sigmoid`). The paper's
    ratio is 1 / 16, and its layers have no bias in section 3 but in the authors' code.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.SqueezeExcite(8, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 5, 8))).shape
    (1, 5, 5, 8)

    Raises:
      ValueError: a width below 1; an input of wrong rank or channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        *,
        rd_ratio: float = 0.25,
        rd_features: int | None = None,
        act: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        reduced = round(rd_ratio * in_features) if rd_features is None else rd_features
        if min(in_features, reduced) < 1:
            raise ValueError(
                "SqueezeExcite expects in_features and rd_features (or rd_ratio x in_features) of "
                f"at least 1. Got {in_features} and {reduced}."
            )
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.in_features = in_features
        self.rd_features = reduced
        self.reduce = Conv(in_features, reduced, (1, 1), **types)
        self.expand = Conv(reduced, in_features, (1, 1), **types)
        self.act = act
        self.gate = gate

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        if x.ndim < 3 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"SqueezeExcite expects an input of shape (*batch, h, w, {self.in_features}). "
                f"Got {x.shape}."
            )
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"SqueezeExcite expects a floating-point input. Got {x.dtype}.")
        with jax.named_scope("SqueezeExcite"):
            means = x.mean((-3, -2), keepdims=True)  # *b 1 1 c
            gate = self.gate(self.expand(self.act(self.reduce(means))))
            return x.astype(gate.dtype) * gate
