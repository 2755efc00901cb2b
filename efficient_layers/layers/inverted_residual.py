# SPDX-License-Identifier: Apache-2.0
"""The block of MobileNetV2, MobileNetV3 and EfficientNet: wide inside, narrow between blocks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers.conv_bn_act import ConvBNAct
from efficient_layers.layers.squeeze_excite import SqueezeExcite
from efficient_layers.ops.activation import relu6

Activation = Callable[[jax.Array], jax.Array]


class ResidualChain(nnx.Module):
    """y = the `parts` one after the other (those that are not None), plus x where `has_skip`."""

    parts: tuple[str, ...] = ()
    has_skip: bool

    def __call__(
        self, x: Float[Array, "*b h w c"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b h2 w2 o"]:
        """`out` receives the output of every part, by name."""
        with jax.named_scope(type(self).__name__):
            y = self.branch(x, out=out)
            return x.astype(y.dtype) + y if self.has_skip else y

    def branch(
        self, x: Float[Array, "*b h w c"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b h2 w2 o"]:
        """What `x` is added to."""
        named = {}
        for name in self.parts:
            part = getattr(self, name)
            if part is not None:
                x = named[name] = part(x)
        if out is not None:
            out.update(named)
        return x

    def _hidden(self, in_features: int, expand_ratio: float) -> int:
        hidden = round(in_features * expand_ratio)
        if hidden < 1:
            raise ValueError(
                f"{type(self).__name__} expects expand_ratio x in_features of at least 1. "
                f"Got {expand_ratio} x {in_features}."
            )
        return hidden


class InvertedResidual(ResidualChain):
    """y = project(se(depthwise(expand(x)))), plus x where strides = 1 and in = out channels.

    `expand` is 1x1 to hidden = expand_ratio x in_features channels, `depthwise` is k x k with the
    strides, `project` is 1x1 without activation (a linear bottleneck). Each is a `ConvBNAct`, with
    its conventions. With hidden = in_features there is no `expand` (the attribute is None).

    `padding` is that of `depthwise`: None is torch's, "SAME" TensorFlow's (other under strides).

    `se` is a `SqueezeExcite` that passes through `se_features` channels; by default
    round(se_ratio x hidden), and with 0 there is none. It takes `act` unless given `se_act`.

    - MobileNetV2: the defaults.
    - MobileNetV3: `act` relu or `ops.hard_swish`, `se_features=make_divisible(hidden / 4)`,
      `se_act=jax.nn.relu`, `se_gate=ops.hard_sigmoid`.
    - EfficientNet: `act=jax.nn.silu`, `se_features=round(in_features / 4)` (of the block's input).

    hidden = hidden_features
    expanding = in_features * hidden if expand is not None else 0
    squeezing = 2 * hidden * se_features
    biases = hidden + se_features if se is not None else 0
    norms = 2 * (hidden * (2 if expanding else 1) + out_features)
    weights = prod(depthwise.conv.kernel_size) * hidden + hidden * out_features
    params = expanding + weights + squeezing + biases + norms
    MACs = h * w * expanding + h2 * w2 * weights + squeezing

    Reference: Sandler et al., *MobileNetV2* (arXiv 1801.04381), section 3.3, table 1; Howard et
    al., *Searching for MobileNetV3* (arXiv 1905.02244), section 5.3; Tan & Le, *EfficientNet*
    (arXiv 1905.11946), section 4.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> block = el.layers.InvertedResidual(8, 8, expand_ratio=6, rngs=nnx.Rngs(0))
    >>> block(jnp.ones((1, 4, 4, 8))).shape
    (1, 4, 4, 8)

    Raises:
      ValueError: sizes below 1; an input of wrong rank or channels.
      TypeError: an input of integers.
    """

    parts = ("expand", "depthwise", "se", "project")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        strides: int = 1,
        expand_ratio: float = 6,
        kernel_size: int = 3,
        padding: Any = None,
        act: Activation = relu6,
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
        if hidden != in_features:
            self.expand = ConvBNAct(in_features, hidden, 1, act=act, **settings)
        self.depthwise = ConvBNAct(
            hidden,
            hidden,
            kernel_size,
            strides,
            feature_group_count=hidden,
            padding=padding,
            act=act,
            **settings,
        )
        self.se: SqueezeExcite | None = nnx.data(None)
        if self.se_features or se_ratio:
            self.se = SqueezeExcite(
                hidden, rd_features=self.se_features, act=se_act or act, gate=se_gate, **types
            )
        self.project = ConvBNAct(hidden, out_features, 1, act=None, **settings)
        self.has_skip = strides == 1 and in_features == out_features
