# SPDX-License-Identifier: Apache-2.0
"""The early block of EfficientNetV2: an inverted residual whose first two layers are one."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from efficient_layers.layers.conv_bn_act import ConvBNAct
from efficient_layers.layers.inverted_residual import Activation, ResidualChain
from efficient_layers.layers.squeeze_excite import SqueezeExcite


class FusedMBConv(ResidualChain):
    """y = project(se(expand(x))), plus x where strides = 1 and in = out channels.

    `expand` is a full k x k convolution with the strides to hidden = expand_ratio x in_features
    channels: what a 1x1 and a depthwise k x k do in `InvertedResidual`. `project` is 1x1 without
    activation. With hidden = in_features there is no `expand` (the attribute is None), and
    `project` is the k x k convolution, with the strides and the activation (as in the authors' code
    and torchvision; timm's `EdgeResidual` keeps both). Each is a `ConvBNAct`, with its conventions.

    `se` is a `SqueezeExcite` through `se_features` channels, as in `InvertedResidual`; none by
    default.

    taps = prod((expand or project).conv.kernel_size)
    hidden = hidden_features
    full = taps * in_features * (out_features if expand is None else hidden)
    weights = full + (0 if expand is None else hidden * out_features)
    squeezing = 2 * hidden * se_features
    biases = hidden + se_features if se is not None else 0
    norms = 2 * (out_features + (0 if expand is None else hidden))
    params = weights + squeezing + biases + norms
    MACs = h2 * w2 * weights + squeezing

    Reference: Tan & Le, *EfficientNetV2* (arXiv 2104.00298), section 3.2, figure 2; Gupta & Tan,
    *EfficientNet-EdgeTPU* (2019).

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.FusedMBConv(8, 12, strides=2, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 5, 8))).shape
    (1, 3, 3, 12)

    Raises:
      ValueError: sizes below 1; an input of wrong rank or channels.
      TypeError: an input of integers.
    """

    parts = ("expand", "se", "project")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        strides: int = 1,
        expand_ratio: float = 4,
        kernel_size: int = 3,
        act: Activation = jax.nn.silu,
        se_ratio: float = 0,
        se_features: int | None = None,
        se_act: Activation | None = None,
        se_gate: Activation = jax.nn.sigmoid,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        hidden = self._hidden(in_features, expand_ratio)
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        settings: dict[str, Any] = {"momentum": momentum, "epsilon": epsilon, **types}
        self.hidden_features = hidden
        self.se_features = round(se_ratio * hidden) if se_features is None else se_features
        self.expand: ConvBNAct | None = nnx.data(None)
        self.se: SqueezeExcite | None = nnx.data(None)
        if self.se_features or se_ratio:
            self.se = SqueezeExcite(
                hidden, rd_features=self.se_features, act=se_act or act, gate=se_gate, **types
            )
        full: dict[str, Any] = {"kernel_size": kernel_size, "strides": strides, "act": act}
        if hidden == in_features:
            self.project = ConvBNAct(hidden, out_features, **full, **settings)
        else:
            self.expand = ConvBNAct(in_features, hidden, **full, **settings)
            self.project = ConvBNAct(hidden, out_features, 1, act=None, **settings)
        self.has_skip = strides == 1 and in_features == out_features
