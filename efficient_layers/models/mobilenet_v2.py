# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2: inverted residuals with linear bottlenecks.

Reference: Sandler, Howard, Zhu, Zhmoginov and Chen, *MobileNetV2: Inverted Residuals and Linear
Bottlenecks*, CVPR 2018 (arXiv 1801.04381), table 2.

Differs from the paper where torchvision and timm do too, so that their weights fit: symmetric
padding, batch normalisation with momentum 0.9 (torch's 0.1) and epsilon 1e-5, dropout 0.2.
"""

import dataclasses
from typing import Any, NamedTuple

from flax import nnx

from efficient_layers.layers import ConvBNAct, InvertedResidual, List, make_divisible
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, he_normal_fan_out, placeholder
from efficient_layers.models.mobile_net import MobileNet
from efficient_layers.models.torch_names.mobilenet_v2 import TORCH


class Stage(NamedTuple):
    """A row of the paper's table 2: `repeats` blocks, the first one with `strides`."""

    expand_ratio: int
    channels: int
    repeats: int
    strides: int


@dataclasses.dataclass(frozen=True)
class Variant:
    """The network of one input size: its table and the data it was cut for."""

    stem_features: int
    stem_strides: int
    stages: tuple[Stage, ...]
    head_features: int
    num_classes: int
    in_channels: int


VARIANTS = {
    "imagenet": Variant(
        stem_features=32,
        stem_strides=2,
        stages=(
            Stage(expand_ratio=1, channels=16, repeats=1, strides=1),
            Stage(expand_ratio=6, channels=24, repeats=2, strides=2),
            Stage(expand_ratio=6, channels=32, repeats=3, strides=2),
            Stage(expand_ratio=6, channels=64, repeats=4, strides=2),
            Stage(expand_ratio=6, channels=96, repeats=3, strides=1),
            Stage(expand_ratio=6, channels=160, repeats=3, strides=2),
            Stage(expand_ratio=6, channels=320, repeats=1, strides=1),
        ),
        head_features=1280,
        num_classes=1000,
        in_channels=3,
    ),
    # 8x8 grey images: a wide stem sees all pixels, then 8x8 -> 4x4 -> 2x2. Six blocks that begin
    # like the paper's (16 channels, 24 channels at 8x8) were no better on validation and half as
    # fast; four blocks also compile in a third less time.
    "digits": Variant(
        stem_features=32,
        stem_strides=1,
        stages=(
            Stage(expand_ratio=4, channels=40, repeats=2, strides=2),
            Stage(expand_ratio=4, channels=64, repeats=2, strides=2),
        ),
        head_features=256,
        num_classes=10,
        in_channels=1,
    ),
}


FROM_VARIANT: Any = None


@dataclasses.dataclass(frozen=True)
class MobileNetV2Config:
    """What makes one MobileNetV2. A field not given takes the value of its variant.

    Attributes:
      width: multiplies every channel count, rounded by `make_divisible(., 8)`; the head only grows.
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
      variant: "imagenet" (the paper's table) or "digits" (for 8x8 input, under 150,000 parameters).
      stages: rows (expand_ratio, channels, repeats, strides) before `width` is applied.
    """

    width: float = 1.0
    num_classes: int = FROM_VARIANT
    in_channels: int = FROM_VARIANT
    dropout_rate: float = 0.2
    variant: str = "imagenet"
    stem_features: int = FROM_VARIANT
    stem_strides: int = FROM_VARIANT
    stages: tuple[Stage, ...] = FROM_VARIANT
    head_features: int = FROM_VARIANT

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"mobilenet_v2 has no variant {self.variant!r}. {nearest(self.variant, VARIANTS)}"
            )
        for name, value in vars(VARIANTS[self.variant]).items():
            if getattr(self, name) is FROM_VARIANT:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "stages", tuple(Stage(*row) for row in self.stages))
        if self.width <= 0 or self.num_classes < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "mobilenet_v2 expects width > 0, num_classes >= 0 and 0 <= dropout_rate < 1. "
                f"Got width={self.width}, num_classes={self.num_classes}, "
                f"dropout_rate={self.dropout_rate}."
            )

    def scaled(self, channels: int) -> int:
        """The channel count at this width."""
        return make_divisible(channels * self.width)


class MobileNetV2(MobileNet):
    """Stem, inverted residuals, 1x1 head, global mean, dropout, classifier."""

    def __init__(self, config: MobileNetV2Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        c = config.scaled(config.stem_features)
        head = make_divisible(config.head_features * max(1.0, config.width))
        self.stem = ConvBNAct(config.in_channels, c, 3, config.stem_strides, rngs=same)
        blocks = []
        for stage in config.stages:
            for index in range(stage.repeats):
                blocks.append(
                    InvertedResidual(
                        c,
                        config.scaled(stage.channels),
                        strides=stage.strides if index == 0 else 1,
                        expand_ratio=stage.expand_ratio,
                        rngs=same,
                    )
                )
                c = config.scaled(stage.channels)
        self.blocks = List(blocks)
        self.head = ConvBNAct(c, head, 1, rngs=same)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(head, config.num_classes, rngs=same)
        draw_weights(self, _weight_scale, rngs=rngs)


def _weight_scale(layer: nnx.Conv | nnx.Linear) -> float:
    return 0.01 if isinstance(layer, nnx.Linear) else he_normal_fan_out(layer)


FAMILY = Family(
    "mobilenet_v2",
    MobileNetV2Config,
    MobileNetV2,
    names={
        "mobilenetv2_035": {"width": 0.35},
        "mobilenetv2_050": {"width": 0.5},
        "mobilenetv2_075": {"width": 0.75},
        "mobilenetv2_100": {},
        "mobilenetv2_140": {"width": 1.4},
    },
    torch=TORCH,
)
