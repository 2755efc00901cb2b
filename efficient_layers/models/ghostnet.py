# SPDX-License-Identifier: Apache-2.0
"""GhostNet: bottlenecks whose 1x1 convolutions make half of their channels by cheap operations.

Reference: Han, Wang, Tian, Guo, Xu and Xu, *GhostNet: More Features from Cheap Operations*, CVPR
2020 (arXiv 1911.11907), table 1.

Differs from the paper where the authors' code and timm do too, so that its weights fit: squeeze-
and-excite layers with a hard sigmoid, channels rounded to multiples of 4, a last layer of 1,280
features at every width, dropout 0.2.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers import ConvBNAct, GhostBottleneck, List, make_divisible
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, he_normal_fan_out, placeholder
from efficient_layers.models.mobile_net import ACTIVATIONS, check_images
from efficient_layers.models.torch_names.ghostnet import TORCH


class Row(NamedTuple):
    """A row of the paper's table 1: a Ghost bottleneck, before `width` is applied."""

    kernel_size: int
    hidden: int
    channels: int
    se_ratio: float
    strides: int


BLOCKS = (
    Row(3, 16, 16, se_ratio=0, strides=1),
    Row(3, 48, 24, se_ratio=0, strides=2),
    Row(3, 72, 24, se_ratio=0, strides=1),
    Row(5, 72, 40, se_ratio=0.25, strides=2),
    Row(5, 120, 40, se_ratio=0.25, strides=1),
    Row(3, 240, 80, se_ratio=0, strides=2),
    Row(3, 200, 80, se_ratio=0, strides=1),
    Row(3, 184, 80, se_ratio=0, strides=1),
    Row(3, 184, 80, se_ratio=0, strides=1),
    Row(3, 480, 112, se_ratio=0.25, strides=1),
    Row(3, 672, 112, se_ratio=0.25, strides=1),
    Row(5, 672, 160, se_ratio=0.25, strides=2),
    Row(5, 960, 160, se_ratio=0, strides=1),
    Row(5, 960, 160, se_ratio=0.25, strides=1),
    Row(5, 960, 160, se_ratio=0, strides=1),
    Row(5, 960, 160, se_ratio=0.25, strides=1),
)


@dataclasses.dataclass(frozen=True)
class GhostNetConfig:
    """What makes one GhostNet.

    Attributes:
      width: multiplies every channel count but `head_features`, rounded by `make_divisible(., 4)`.
      blocks: rows (kernel_size, hidden, channels, se_ratio, strides) before `width` is applied; the
        1x1 convolution behind them has the last row's `hidden` channels.
      num_classes: 0 leaves the classifier out; the model then returns features (b, head_features).
    """

    width: float = 1.0
    num_classes: int = 1000
    in_channels: int = 3
    stem_features: int = 16
    blocks: tuple[Row, ...] = BLOCKS
    head_features: int = 1280
    act: str = "relu"
    dropout_rate: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(Row(*row) for row in self.blocks))
        if self.act not in ACTIVATIONS:
            raise ValueError(f"ghostnet has no act {self.act!r}. {nearest(self.act, ACTIVATIONS)}")
        if self.width <= 0 or self.num_classes < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "ghostnet expects width > 0, num_classes >= 0 and 0 <= dropout_rate < 1. "
                f"Got width={self.width}, num_classes={self.num_classes}, "
                f"dropout_rate={self.dropout_rate}."
            )
        if not self.blocks:
            raise ValueError("ghostnet expects at least one row in blocks. Got none.")

    def scaled(self, channels: int) -> int:
        """The channel count at this width."""
        return make_divisible(channels * self.width, 4)


class GhostNet(nnx.Module):
    """Stem, Ghost bottlenecks, 1x1 convolution, global mean, dense layer, dropout, classifier."""

    def __init__(self, config: GhostNetConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        act: Any = ACTIVATIONS[config.act]
        c = config.scaled(config.stem_features)
        self.stem = ConvBNAct(config.in_channels, c, 3, 2, act=act, rngs=same)
        blocks = []
        for row in config.blocks:
            blocks.append(
                GhostBottleneck(
                    c,
                    config.scaled(row.hidden),
                    config.scaled(row.channels),
                    strides=row.strides,
                    kernel_size=row.kernel_size,
                    act=act,
                    se_ratio=row.se_ratio,
                    rngs=same,
                )
            )
            c = config.scaled(row.channels)
        self.blocks = List(blocks)
        last = config.scaled(config.blocks[-1].hidden)
        self.last = ConvBNAct(c, last, 1, act=act, rngs=same)
        self.head = nnx.Linear(last, config.head_features, rngs=same)
        self.act = act
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(config.head_features, config.num_classes, rngs=same)
        draw_weights(self, self._weight_scale, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, head_features) for num_classes = 0.

        Args:
          rngs: key of the dropout; needed in train mode where `dropout_rate` > 0.
          out: filled with "stem", "blocks/0", ..., "last", "features" and "logits".
        """
        check_images(self, x, self.config.in_channels)
        out = {} if out is None else out
        out["stem"] = x = self.stem(x)
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                out[f"blocks/{index}"] = x = block(x)
        out["last"] = x = self.last(x)
        out["features"] = x = self.act(self.head(jnp.mean(x, axis=(1, 2))))
        if self.classifier is None:
            return x
        out["logits"] = x = self.classifier(drop(self.dropout, x, rngs))
        return x

    def _weight_scale(self, layer: nnx.Conv | nnx.Linear) -> float:
        """0.01 for the classifier, else He's."""
        return 0.01 if layer is self.classifier else he_normal_fan_out(layer)


FAMILY = Family(
    "ghostnet",
    GhostNetConfig,
    GhostNet,
    names={
        "ghostnet_050": {"width": 0.5},
        "ghostnet_100": {},
        "ghostnet_130": {"width": 1.3},
    },
    torch=TORCH,
)
