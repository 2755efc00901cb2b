# SPDX-License-Identifier: Apache-2.0
"""The unit of ShuffleNetV2: work on half of the channels, then shuffle."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.layers.conv_bn_act import ConvBNAct
from efficient_layers.ops.channel_shuffle import channel_shuffle


class ShuffleUnit(nnx.Module):
    """y = shuffle([a, project(depthwise(expand(b)))]), half of the channels each.

    With strides 1 the input is split: a its first half, as it is, b the second (in_features =
    out_features). With larger strides both branches see the whole input, and a =
    shortcut_project(shortcut_depthwise(x)); without strides these two are None. `expand`, `project`
    and `shortcut_project` are 1x1 with activation, the depthwise ones k x k without.

    half = out_features // 2
    taps = kernel_size**2
    seen = in_features if strides > 1 else half
    shortcut = in_features if strides > 1 else 0
    params = half * (seen + taps + half + (8 if strides > 1 else 6)) + shortcut * (taps + half + 2)
    MACs = h * w * seen * half + h2 * w2 * (taps + half) * (half + shortcut)

    Reference: Ma et al., *ShuffleNet V2* (arXiv 1807.11164), section 3.2, figure 3 (c) and (d).

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> unit = el.layers.ShuffleUnit(8, 16, strides=2, rngs=nnx.Rngs(0))
    >>> unit(jnp.ones((1, 5, 5, 8))).shape
    (1, 3, 3, 16)

    Raises:
      ValueError: an odd `out_features`; strides 1 with other `out_features` than `in_features`; an
        input of other rank or channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        strides: int = 1,
        kernel_size: int = 3,
        act: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check(in_features, out_features, strides)
        self.in_features, self.strides = in_features, strides
        half = out_features // 2
        settings: dict[str, Any] = {
            "momentum": momentum,
            "epsilon": epsilon,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }

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

        self.shortcut_depthwise: ConvBNAct | None = nnx.data(None)
        self.shortcut_project: ConvBNAct | None = nnx.data(None)
        if strides > 1:
            self.shortcut_depthwise = depthwise(in_features)
            self.shortcut_project = ConvBNAct(in_features, half, 1, act=act, **settings)
        self.expand = ConvBNAct(in_features if strides > 1 else half, half, 1, act=act, **settings)
        self.depthwise = depthwise(half)
        self.project = ConvBNAct(half, half, 1, act=act, **settings)

    def __call__(
        self, x: Float[Array, "*b h w c"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b h2 w2 o"]:
        """`out` receives "shortcut", "expand", "depthwise" and "project", before the shuffle."""
        if x.ndim < 3 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"ShuffleUnit expects an input of shape (*batch, h, w, {self.in_features}). "
                f"Got {x.shape}."
            )
        with jax.named_scope("ShuffleUnit"):
            named = {}
            if self.shortcut_depthwise is None or self.shortcut_project is None:
                named["shortcut"], y = jnp.split(x, 2, axis=-1)
            else:
                named["shortcut"] = self.shortcut_project(self.shortcut_depthwise(x))
                y = x
            y = named["expand"] = self.expand(y)
            y = named["depthwise"] = self.depthwise(y)
            y = named["project"] = self.project(y)
            both = [named["shortcut"].astype(y.dtype), y]
            y = channel_shuffle(jnp.concatenate(both, axis=-1), 2)
        if out is not None:
            out.update(named)
        return y


def _check(in_features: int, out_features: int, strides: int) -> None:
    if out_features < 2 or out_features % 2 or in_features < 1:
        raise ValueError(
            "ShuffleUnit expects an even number of out_features, half a branch. "
            f"Got in_features={in_features}, out_features={out_features}."
        )
    if strides < 1 or (strides == 1 and in_features != out_features):
        raise ValueError(
            "ShuffleUnit with strides 1 keeps the number of channels: in_features = out_features. "
            f"Got {in_features}, {out_features} and strides={strides}."
        )
