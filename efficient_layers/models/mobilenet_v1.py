# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1: depthwise-separable convolutions, one after the other.

Reference: Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto and Adam, *MobileNets: Efficient
Convolutional Neural Networks for Mobile Vision Applications* (arXiv 1704.04861), table 1; the
shallow and the full convolution forms are those of its tables 5 and 4.

Differs from the paper where timm does too, so that its weights fit: ReLU6 (as in TF-Slim),
symmetric padding (`padding="SAME"` is TensorFlow's; sizes and counts are the same).
"""

import dataclasses
from typing import Any, NamedTuple

from flax import nnx

from efficient_layers.layers import ConvBNAct, List, SeparableConv, make_divisible
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, fan_out_of_a_group, placeholder
from efficient_layers.models.mobile_net import ACTIVATIONS, PADDINGS, MobileNet, check_choices
from efficient_layers.models.torch_names.mobilenet_v1 import TORCH


class Stage(NamedTuple):
    """`repeats` blocks, the first one with `strides`."""

    channels: int
    repeats: int
    strides: int


VARIANTS = {
    "full": (
        Stage(64, 1, 1),
        Stage(128, 2, 2),
        Stage(256, 2, 2),
        Stage(512, 6, 2),
        Stage(1024, 2, 2),
    ),
    # Table 5: without the five blocks of 512 channels that keep their image's size.
    "shallow": (
        Stage(64, 1, 1),
        Stage(128, 2, 2),
        Stage(256, 2, 2),
        Stage(512, 1, 2),
        Stage(1024, 2, 2),
    ),
}

FROM_VARIANT: Any = None


@dataclasses.dataclass(frozen=True)
class MobileNetV1Config:
    """What makes one MobileNetV1. A field not given takes the value of its variant.

    Attributes:
      width: multiplies every channel count, rounded by `make_divisible(., 8)`.
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
      variant: "full" or "shallow".
      stages: rows (channels, repeats, strides) before `width` is applied.
      separable: False makes every block a full 3x3 convolution (the paper's table 4).
      head_features: of a 1x1 convolution before the mean, which only grows with `width`; 0: none.
      padding: "torch" or "SAME".
    """

    width: float = 1.0
    num_classes: int = 1000
    in_channels: int = 3
    dropout_rate: float = 0.2
    variant: str = "full"
    stem_features: int = 32
    stages: tuple[Stage, ...] = FROM_VARIANT
    separable: bool = True
    head_features: int = 0
    act: str = "relu6"
    padding: str = "torch"
    momentum: float = 0.9
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"mobilenet_v1 has no variant {self.variant!r}. {nearest(self.variant, VARIANTS)}"
            )
        stages = VARIANTS[self.variant] if self.stages is FROM_VARIANT else self.stages
        object.__setattr__(self, "stages", tuple(Stage(*row) for row in stages))
        check_choices("mobilenet_v1", self.act, self.padding)
        if self.width <= 0 or self.num_classes < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "mobilenet_v1 expects width > 0, num_classes >= 0 and 0 <= dropout_rate < 1. "
                f"Got width={self.width}, num_classes={self.num_classes}, "
                f"dropout_rate={self.dropout_rate}."
            )

    def scaled(self, channels: int) -> int:
        """The channel count at this width."""
        return make_divisible(channels * self.width)


class MobileNetV1(MobileNet):
    """Stem, separable convolutions, global mean, dropout, classifier."""

    def __init__(self, config: MobileNetV1Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        settings: dict[str, Any] = {
            "act": ACTIVATIONS[config.act],
            "momentum": config.momentum,
            "epsilon": config.epsilon,
            "padding": PADDINGS[config.padding],
            "rngs": same,
        }
        c = config.scaled(config.stem_features)
        self.stem = ConvBNAct(config.in_channels, c, 3, 2, **settings)
        blocks: list[nnx.Module] = []
        for stage in config.stages:
            features = config.scaled(stage.channels)
            for index in range(stage.repeats):
                strides = stage.strides if index == 0 else 1
                if config.separable:
                    block: nnx.Module = SeparableConv(
                        c, features, 3, strides, between=True, **settings
                    )
                else:
                    block = ConvBNAct(c, features, 3, strides, **settings)
                blocks.append(block)
                c = features
        self.blocks = List(blocks)
        self.head = nnx.data(None)
        if config.head_features:
            head = max(config.head_features, config.scaled(config.head_features))
            self.head = ConvBNAct(c, head, 1, **settings)
            c = head
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(c, config.num_classes, rngs=same)
        draw_weights(self, fan_out_of_a_group, rngs=rngs)


FAMILY = Family(
    "mobilenet_v1",
    MobileNetV1Config,
    MobileNetV1,
    names={
        "mobilenetv1_100": {},
        "mobilenetv1_100h": {"head_features": 1024},
        "mobilenetv1_125": {"width": 1.25},
    },
    torch=TORCH,
)
