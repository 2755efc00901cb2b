# SPDX-License-Identifier: Apache-2.0
"""MnasNet A1 (with squeeze-and-excitation), B1 (without) and small.

Reference: Tan, Chen, Pang, Vasudevan, Sandler, Howard and Le, *MnasNet: Platform-Aware Neural
Architecture Search for Mobile*, CVPR 2019 (arXiv 1807.11626), figure 7; B1 and small are those of
github.com/tensorflow/tpu, models/official/mnasnet. Padding is torch's, as in torchvision and timm.
"""

import dataclasses
from typing import Any, NamedTuple

from flax import nnx

from efficient_layers.layers import ConvBNAct, InvertedResidual, List, make_divisible
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, fan_out_of_a_group, placeholder
from efficient_layers.models.mobile_net import ACTIVATIONS, PADDINGS, MobileNet, check_choices
from efficient_layers.models.torch_names.mnasnet import TORCH


class Stage(NamedTuple):
    """`repeats` blocks, the first one with `strides`; `se_ratio` is a share of a block's input."""

    kernel_size: int
    expand_ratio: int
    channels: int
    repeats: int
    strides: int
    se_ratio: float = 0.0


@dataclasses.dataclass(frozen=True)
class Variant:
    """One table with its stem."""

    stem_features: int
    stages: tuple[Stage, ...]


VARIANTS = {
    "a1": Variant(
        32,
        (
            Stage(3, 1, 16, 1, 1),
            Stage(3, 6, 24, 2, 2),
            Stage(5, 3, 40, 3, 2, se_ratio=0.25),
            Stage(3, 6, 80, 4, 2),
            Stage(3, 6, 112, 2, 1, se_ratio=0.25),
            Stage(5, 6, 160, 3, 2, se_ratio=0.25),
            Stage(3, 6, 320, 1, 1),
        ),
    ),
    "b1": Variant(
        32,
        (
            Stage(3, 1, 16, 1, 1),
            Stage(3, 3, 24, 3, 2),
            Stage(5, 3, 40, 3, 2),
            Stage(5, 6, 80, 3, 2),
            Stage(3, 6, 96, 2, 1),
            Stage(5, 6, 192, 4, 2),
            Stage(3, 6, 320, 1, 1),
        ),
    ),
    "small": Variant(
        8,
        (
            Stage(3, 1, 8, 1, 1),
            Stage(3, 3, 16, 1, 2),
            Stage(3, 6, 16, 2, 2),
            Stage(5, 6, 32, 4, 2, se_ratio=0.25),
            Stage(3, 6, 32, 3, 1, se_ratio=0.25),
            Stage(5, 6, 88, 3, 2, se_ratio=0.25),
            Stage(3, 6, 144, 1, 1),
        ),
    ),
}

FROM_VARIANT: Any = None


@dataclasses.dataclass(frozen=True)
class MnasNetConfig:
    """What makes one MnasNet. A field not given takes the value of its variant.

    Attributes:
      width: multiplies every channel count, rounded by `make_divisible(., 8)`; not the head's.
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
      variant: "a1" (the paper's), "b1" or "small".
      stages: rows (kernel_size, expand_ratio, channels, repeats, strides, se_ratio) before `width`.
      padding: "torch" or "SAME".
    """

    width: float = 1.0
    num_classes: int = 1000
    in_channels: int = 3
    dropout_rate: float = 0.2
    variant: str = "a1"
    stem_features: int = FROM_VARIANT
    stages: tuple[Stage, ...] = FROM_VARIANT
    head_features: int = 1280
    act: str = "relu"
    padding: str = "torch"
    momentum: float = 0.9
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"mnasnet has no variant {self.variant!r}. {nearest(self.variant, VARIANTS)}"
            )
        for name, value in vars(VARIANTS[self.variant]).items():
            if getattr(self, name) is FROM_VARIANT:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "stages", tuple(Stage(*row) for row in self.stages))
        check_choices("mnasnet", self.act, self.padding)
        if self.width <= 0 or self.num_classes < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "mnasnet expects width > 0, num_classes >= 0 and 0 <= dropout_rate < 1. "
                f"Got width={self.width}, num_classes={self.num_classes}, "
                f"dropout_rate={self.dropout_rate}."
            )

    def scaled(self, channels: int) -> int:
        """The channel count at this width."""
        return make_divisible(channels * self.width)


class MnasNet(MobileNet):
    """Stem, inverted residuals, 1x1 head, global mean, dropout, classifier."""

    def __init__(self, config: MnasNetConfig, *, rngs: nnx.Rngs) -> None:
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
        blocks = []
        for stage in config.stages:
            for index in range(stage.repeats):
                blocks.append(
                    InvertedResidual(
                        c,
                        config.scaled(stage.channels),
                        strides=stage.strides if index == 0 else 1,
                        expand_ratio=stage.expand_ratio,
                        kernel_size=stage.kernel_size,
                        se_features=round(stage.se_ratio * c),
                        **settings,
                    )
                )
                c = config.scaled(stage.channels)
        self.blocks = List(blocks)
        self.head = ConvBNAct(c, config.head_features, 1, **settings)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(config.head_features, config.num_classes, rngs=same)
        draw_weights(self, fan_out_of_a_group, rngs=rngs)


# torchvision's running statistics move as TensorFlow's, timm's as torch's.
_TORCHVISION = {"variant": "b1", "momentum": 0.9997}

FAMILY = Family(
    "mnasnet",
    MnasNetConfig,
    MnasNet,
    names={
        "mnasnet0_5": {"width": 0.5, **_TORCHVISION},
        "mnasnet0_75": {"width": 0.75, **_TORCHVISION},
        "mnasnet1_0": _TORCHVISION,
        "mnasnet1_3": {"width": 1.3, **_TORCHVISION},
        "mnasnet_050": {"variant": "b1", "width": 0.5},
        "mnasnet_075": {"variant": "b1", "width": 0.75},
        "mnasnet_100": {"variant": "b1"},
        "mnasnet_140": {"variant": "b1", "width": 1.4},
        "mnasnet_small": {"variant": "small"},
        "semnasnet_050": {"width": 0.5},
        "semnasnet_075": {"width": 0.75},
        "semnasnet_100": {},
        "semnasnet_140": {"width": 1.4},
    },
    torch=TORCH,
)
