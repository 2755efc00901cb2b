# SPDX-License-Identifier: Apache-2.0
"""The block of MobileNetV2: wide inside, narrow between blocks."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers.conv_bn_act import ConvBNAct
from efficient_layers.ops.activation import relu6


class InvertedResidual(nnx.Module):
    """y = project(depthwise(expand(x))), plus x where strides = 1 and in_features = out_features.

    `expand` is 1x1 to hidden = expand_ratio x in_features channels, `depthwise` is k x k with the
    strides, `project` is 1x1 without activation (a linear bottleneck). With hidden = in_features
    there is no `expand` (the attribute is None). Each is a `ConvBNAct`, with its conventions.

    params = in hidden + k^2 hidden + hidden out + 2 (2 hidden + out); without `expand` its in
    hidden + 2 hidden fall away. MACs = h w in hidden + h' w' (k^2 + out) hidden.

    Reference: Sandler et al., *MobileNetV2* (arXiv 1801.04381), section 3.3, table 1.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> block = el.layers.InvertedResidual(8, 8, expand_ratio=6, rngs=nnx.Rngs(0))
    >>> block(jnp.ones((1, 4, 4, 8))).shape
    (1, 4, 4, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        strides: int = 1,
        expand_ratio: float = 6,
        kernel_size: int = 3,
        act: Callable[[jax.Array], jax.Array] = relu6,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        hidden = round(in_features * expand_ratio)
        if hidden < 1:
            raise ValueError(
                "InvertedResidual expects expand_ratio x in_features of at least 1. "
                f"Got {expand_ratio} x {in_features}."
            )
        settings: dict[str, Any] = {
            "momentum": momentum,
            "epsilon": epsilon,
            "dtype": dtype,
            "rngs": rngs,
        }
        self.expand: ConvBNAct | None = nnx.data(None)
        if hidden != in_features:
            self.expand = ConvBNAct(in_features, hidden, 1, act=act, **settings)
        self.depthwise = ConvBNAct(
            hidden, hidden, kernel_size, strides, feature_group_count=hidden, act=act, **settings
        )
        self.project = ConvBNAct(hidden, out_features, 1, act=None, **settings)
        self.has_skip = strides == 1 and in_features == out_features

    def __call__(
        self, x: Float[Array, "*b h w c"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b h2 w2 o"]:
        """`out` receives "expand", "depthwise" and "project", each after its activation."""
        with jax.named_scope("InvertedResidual"):
            named = {}
            y = x
            if self.expand is not None:
                y = named["expand"] = self.expand(y)
            y = named["depthwise"] = self.depthwise(y)
            y = named["project"] = self.project(y)
        if out is not None:
            out.update(named)
        return x + y if self.has_skip else y
