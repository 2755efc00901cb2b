# SPDX-License-Identifier: Apache-2.0
"""Ghost convolution: a few channels by convolution, the others from those by cheap ones."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.layers.conv_bn_act import ConvBNAct
from efficient_layers.layers.make_divisible import make_divisible
from efficient_layers.layers.squeeze_excite import SqueezeExcite


class GhostModule(nnx.Module):
    """y = [p, cheap(p)], p = primary(x): 1 / ratio of the channels by convolution.

    `primary` is a `kernel_size` convolution to ceil(out_features / ratio) channels, with the
    strides; `cheap` is depthwise, `cheap_kernel_size`, and makes ratio - 1 channels of each. Both
    are `ConvBNAct`. What exceeds out_features is cut off.

    initial = ceil(out_features / ratio)
    cheap = initial * (ratio - 1) * cheap_kernel_size**2
    params = initial * in_features * kernel_size**2 + cheap + 2 * ratio * initial
    MACs = h2 * w2 * (initial * in_features * kernel_size**2 + cheap)

    Reference: Han et al., *GhostNet* (arXiv 1911.11907), section 3.1. As in the authors' code, the
    cheap operations are 3x3 or 5x5 depthwise convolutions with BatchNorm and activation.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.GhostModule(8, 12, rngs=nnx.Rngs(0))(jnp.ones((1, 4, 4, 8))).shape
    (1, 4, 4, 12)

    Raises:
      ValueError: a size below 1, a ratio below 2; an input of other rank or channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 1,
        strides: int = 1,
        *,
        ratio: int = 2,
        cheap_kernel_size: int = 3,
        act: Callable[[jax.Array], jax.Array] | None = jax.nn.relu,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if min(in_features, out_features) < 1 or ratio < 2:
            raise ValueError(
                "GhostModule expects features of at least 1 and a ratio of at least 2. "
                f"Got in_features={in_features}, out_features={out_features}, ratio={ratio}."
            )
        settings: dict[str, Any] = {
            "act": act,
            "momentum": momentum,
            "epsilon": epsilon,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        initial = math.ceil(out_features / ratio)
        self.out_features = out_features
        self.primary = ConvBNAct(in_features, initial, kernel_size, strides, **settings)
        self.cheap = ConvBNAct(
            initial,
            initial * (ratio - 1),
            cheap_kernel_size,
            feature_group_count=initial,
            **settings,
        )

    def __call__(
        self, x: Float[Array, "*b h w c"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b h2 w2 o"]:
        """`out` receives "primary" and "cheap", each after its activation."""
        with jax.named_scope("GhostModule"):
            primary = self.primary(x)
            cheap = self.cheap(primary)
            y = jnp.concatenate([primary, cheap], axis=-1)[..., : self.out_features]
        if out is not None:
            out.update(primary=primary, cheap=cheap)
        return y


class GhostBottleneck(nnx.Module):
    """y = contract(se(depthwise(expand(x)))) + shortcut(x), 1x1 convolutions as Ghost modules.

    `expand` goes to `hidden_features` with activation, `contract` to `out_features` without.
    `depthwise` (no activation) is there with strides above 1 alone, else None. `se` squeezes to
    make_divisible(se_ratio x hidden, 4) channels and has the gate hard_sigmoid; None with se_ratio
    0. The shortcut is the
    input itself where strides = 1 and in_features = out_features (both attributes None), else
    shortcut_project(shortcut_depthwise(x)), without activations.

    taps = kernel_size**2
    half = ceil(hidden_features / 2)
    last = ceil(out_features / 2)
    wide = half * (in_features + 9) + 4 * half
    narrow = last * (hidden_features + 9) + 4 * last
    down = (taps + 2) * hidden_features if strides > 1 else 0
    skips = strides == 1 and in_features == out_features
    branch = 0 if skips else in_features * (taps + 2 + out_features) + 2 * out_features
    squeezing = 2 * hidden_features * se_features
    biases = hidden_features + se_features if se_features else 0
    params = wide + narrow + down + branch + squeezing + biases
    skip = 0 if skips else in_features * (taps + out_features)
    inner = last * (hidden_features + 9) + (taps * hidden_features if strides > 1 else 0)
    MACs = h * w * half * (in_features + 9) + h2 * w2 * (inner + skip) + squeezing

    Reference: Han et al., *GhostNet* (arXiv 1911.11907), section 3.2, figure 3; squeeze-and-
    excite as in the authors' code.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> block = el.layers.GhostBottleneck(8, 16, 12, strides=2, rngs=nnx.Rngs(0))
    >>> block(jnp.ones((1, 5, 5, 8))).shape
    (1, 3, 3, 12)

    Raises:
      ValueError: a size below 1; an input of other rank or channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        strides: int = 1,
        kernel_size: int = 3,
        act: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        se_ratio: float = 0,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        settings: dict[str, Any] = {"momentum": momentum, "epsilon": epsilon, **types}

        def depthwise(features: int) -> ConvBNAct:
            return ConvBNAct(
                features,
                features,
                kernel_size,
                strides,
                feature_group_count=features,
                act=None,
                **settings,
            )

        self.expand = GhostModule(in_features, hidden_features, act=act, **settings)
        self.depthwise: ConvBNAct | None = nnx.data(None)
        if strides > 1:
            self.depthwise = depthwise(hidden_features)
        self.se_features = make_divisible(se_ratio * hidden_features, 4) if se_ratio else 0
        self.se: SqueezeExcite | None = nnx.data(None)
        if self.se_features:
            self.se = SqueezeExcite(
                hidden_features,
                rd_features=self.se_features,
                gate=jax.nn.hard_sigmoid,
                **types,
            )
        self.contract = GhostModule(hidden_features, out_features, act=None, **settings)
        self.shortcut_depthwise: ConvBNAct | None = nnx.data(None)
        self.shortcut_project: ConvBNAct | None = nnx.data(None)
        if strides > 1 or in_features != out_features:
            self.shortcut_depthwise = depthwise(in_features)
            self.shortcut_project = ConvBNAct(in_features, out_features, 1, act=None, **settings)

    def __call__(
        self, x: Float[Array, "*b h w c"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b h2 w2 o"]:
        """`out` receives "expand", "depthwise", "se", "contract", "shortcut": those that it has."""
        with jax.named_scope("GhostBottleneck"):
            named = {"expand": self.expand(x)}
            y = named["expand"]
            if self.depthwise is not None:
                y = named["depthwise"] = self.depthwise(y)
            if self.se is not None:
                y = named["se"] = self.se(y)
            y = named["contract"] = self.contract(y)
            shortcut = x
            if self.shortcut_depthwise is not None and self.shortcut_project is not None:
                shortcut = self.shortcut_project(self.shortcut_depthwise(x))
                named["shortcut"] = shortcut
            y = y + shortcut.astype(y.dtype)
        if out is not None:
            out.update(named)
        return y
