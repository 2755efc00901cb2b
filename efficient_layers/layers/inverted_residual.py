# SPDX-License-Identifier: Apache-2.0
"""The block of MobileNetV2."""

import jax
from flax import nnx

from efficient_layers.layers.conv_bn_act import ConvBNAct
from efficient_layers.ops.activation import relu6


class InvertedResidual(nnx.Module):
    """Expand (1x1), filter (depthwise k x k), project (1x1, linear); plus x where shapes allow."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        strides: int = 1,
        expand_ratio: float = 6,
        kernel_size: int = 3,
        act=relu6,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        hidden = round(in_features * expand_ratio)
        settings = {"momentum": momentum, "epsilon": epsilon, "dtype": dtype, "rngs": rngs}
        self.expand = nnx.data(None)
        if hidden != in_features:
            self.expand = ConvBNAct(in_features, hidden, 1, act=act, **settings)
        self.depthwise = ConvBNAct(
            hidden, hidden, kernel_size, strides, feature_group_count=hidden, act=act, **settings
        )
        self.project = ConvBNAct(hidden, out_features, 1, act=None, **settings)
        self.has_skip = strides == 1 and in_features == out_features

    def __call__(self, x, *, out=None):
        with jax.named_scope("InvertedResidual"):
            y = x if self.expand is None else self.expand(x)
            y = self.project(self.depthwise(y))
            return x + y if self.has_skip else y
