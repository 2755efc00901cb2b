# SPDX-License-Identifier: Apache-2.0
"""EfficientNet B0-B7 and Lite0-4: one searched network, scaled in width, depth and image size.

References: Tan and Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*,
ICML 2019 (arXiv 1905.11946), table 1 and equation 3; the coefficients and the Lite networks are
those of github.com/tensorflow/tpu, models/official/efficientnet (efficientnet_builder.py, lite/).

Padding is torch's, as in torchvision and timm; timm's `tf_` models have TensorFlow's.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers import ConvBNAct, DropPath, InvertedResidual, List, make_divisible
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, fan_out_of_a_group, placeholder
from efficient_layers.models.mobile_net import ACTIVATIONS, PADDINGS, MobileNet, check_choices
from efficient_layers.models.torch_names.efficientnet import TORCH


class Stage(NamedTuple):
    """A row of the paper's table 1: `repeats` blocks, the first one with `strides`."""

    kernel_size: int
    expand_ratio: int
    channels: int
    repeats: int
    strides: int


STAGES = (
    Stage(kernel_size=3, expand_ratio=1, channels=16, repeats=1, strides=1),
    Stage(kernel_size=3, expand_ratio=6, channels=24, repeats=2, strides=2),
    Stage(kernel_size=5, expand_ratio=6, channels=40, repeats=2, strides=2),
    Stage(kernel_size=3, expand_ratio=6, channels=80, repeats=3, strides=2),
    Stage(kernel_size=5, expand_ratio=6, channels=112, repeats=3, strides=1),
    Stage(kernel_size=5, expand_ratio=6, channels=192, repeats=4, strides=2),
    Stage(kernel_size=3, expand_ratio=6, channels=320, repeats=1, strides=1),
)


class Scaling(NamedTuple):
    """A row of the authors' table of coefficients; `image_size` is what the network was cut for."""

    width: float
    depth: float
    image_size: int
    dropout_rate: float


SCALINGS = {
    "b0": Scaling(1.0, 1.0, 224, 0.2),
    "b1": Scaling(1.0, 1.1, 240, 0.2),
    "b2": Scaling(1.1, 1.2, 260, 0.3),
    "b3": Scaling(1.2, 1.4, 300, 0.3),
    "b4": Scaling(1.4, 1.8, 380, 0.4),
    "b5": Scaling(1.6, 2.2, 456, 0.4),
    "b6": Scaling(1.8, 2.6, 528, 0.5),
    "b7": Scaling(2.0, 3.1, 600, 0.5),
    "b8": Scaling(2.2, 3.6, 672, 0.5),
    "lite0": Scaling(1.0, 1.0, 224, 0.2),
    "lite1": Scaling(1.0, 1.1, 240, 0.2),
    "lite2": Scaling(1.1, 1.2, 260, 0.3),
    "lite3": Scaling(1.2, 1.4, 280, 0.3),
    "lite4": Scaling(1.4, 1.8, 300, 0.3),
}

FROM_VARIANT: Any = None


@dataclasses.dataclass(frozen=True)
class EfficientNetConfig:
    """What makes one EfficientNet. A field not given takes the value of its variant.

    Attributes:
      variant: a row of `SCALINGS`: "b0", ..., "b8", "lite0", ..., "lite4".
      width: multiplies every channel count, rounded by `make_divisible(., 8)`.
      depth: multiplies the blocks of every stage, rounded up.
      lite: ReLU6, no squeeze-and-excitation; stem and head keep their width, the first and the last
        stage their depth.
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
      drop_path_rate: of the last block but one; grows from 0 in proportion to the block's index.
      se_ratio: channels of the squeeze, as a share of the block's input.
      stages: rows (kernel_size, expand_ratio, channels, repeats, strides) before scaling.
      act: "silu", or "relu6" where `lite`.
      padding: "torch" or "SAME".
    """

    variant: str = "b0"
    num_classes: int = 1000
    in_channels: int = 3
    width: float = FROM_VARIANT
    depth: float = FROM_VARIANT
    dropout_rate: float = FROM_VARIANT
    drop_path_rate: float = 0.2
    lite: bool = FROM_VARIANT
    act: str = FROM_VARIANT
    se_ratio: float = FROM_VARIANT
    stem_features: int = 32
    stages: tuple[Stage, ...] = STAGES
    head_features: int = 1280
    padding: str = "torch"
    momentum: float = 0.9
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.variant not in SCALINGS:
            raise ValueError(
                f"efficientnet has no variant {self.variant!r}. {nearest(self.variant, SCALINGS)}"
            )
        row, lite = SCALINGS[self.variant], self.lite
        lite = self.variant.startswith("lite") if lite is FROM_VARIANT else lite
        defaults = {
            "width": row.width,
            "depth": row.depth,
            "dropout_rate": row.dropout_rate,
            "lite": lite,
            "act": "relu6" if lite else "silu",
            "se_ratio": 0.0 if lite else 0.25,
        }
        for name, value in defaults.items():
            if getattr(self, name) is FROM_VARIANT:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "stages", tuple(Stage(*stage) for stage in self.stages))
        check_choices("efficientnet", self.act, self.padding)
        rates = 0 <= self.dropout_rate < 1 and 0 <= self.drop_path_rate < 1
        if min(self.width, self.depth) <= 0 or self.num_classes < 0 or not rates:
            raise ValueError(
                "efficientnet expects width > 0, depth > 0, num_classes >= 0 and rates in [0, 1). "
                f"Got width={self.width}, depth={self.depth}, num_classes={self.num_classes}, "
                f"dropout_rate={self.dropout_rate}, drop_path_rate={self.drop_path_rate}."
            )

    @property
    def repeats(self) -> tuple[int, ...]:
        """Blocks of every stage at this depth."""
        ends = (0, len(self.stages) - 1) if self.lite else ()
        return tuple(
            stage.repeats if index in ends else math.ceil(stage.repeats * self.depth)
            for index, stage in enumerate(self.stages)
        )

    def scaled(self, channels: int) -> int:
        """The channel count at this width."""
        return make_divisible(channels * self.width)


class MBConv(InvertedResidual):
    """An `InvertedResidual` whose branch is left out at random while training (`DropPath`)."""

    def __init__(self, *sizes: int, drop_path_rate: float, **settings: Any):
        super().__init__(*sizes, **settings)
        self.drop_path = DropPath(drop_path_rate if self.has_skip else 0)

    def __call__(
        self,
        x: Float[Array, "*b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "*b h2 w2 o"]:
        """`out` receives the output of every part, by name."""
        y = self.branch(x, out=out)
        return x.astype(y.dtype) + self.drop_path(y, rngs=rngs) if self.has_skip else y


class EfficientNet(MobileNet):
    """Stem, inverted residuals with squeeze-and-excitation, 1x1 head, mean, dropout, classifier."""

    def __init__(self, config: EfficientNetConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        settings: dict[str, Any] = {
            "act": ACTIVATIONS[config.act],
            "momentum": config.momentum,
            "epsilon": config.epsilon,
            "padding": PADDINGS[config.padding],
            "rngs": same,
        }
        c = config.stem_features if config.lite else config.scaled(config.stem_features)
        head = config.head_features if config.lite else config.scaled(config.head_features)
        self.stem = ConvBNAct(config.in_channels, c, 3, 2, **settings)
        blocks: list[MBConv] = []
        for stage, repeats in zip(config.stages, config.repeats, strict=True):
            for index in range(repeats):
                features = config.scaled(stage.channels)
                blocks.append(
                    MBConv(
                        c,
                        features,
                        strides=stage.strides if index == 0 else 1,
                        expand_ratio=stage.expand_ratio,
                        kernel_size=stage.kernel_size,
                        se_features=round(config.se_ratio * c),
                        drop_path_rate=config.drop_path_rate * len(blocks) / sum(config.repeats),
                        **settings,
                    )
                )
                c = features
        self.blocks = List(blocks)
        self.head = ConvBNAct(c, head, 1, **settings)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(head, config.num_classes, rngs=same)
        draw_weights(self, fan_out_of_a_group, rngs=rngs)

    def run_block(self, block: Any, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        return block(x, rngs=rngs)


def _names() -> dict[str, dict[str, Any]]:
    """B5 to B7 are torchvision's; timm's networks of that name keep torch's epsilon, 1e-5."""
    names: dict[str, dict[str, Any]] = {}
    for variant in SCALINGS:
        names[f"efficientnet_{variant}"] = {"variant": variant}
        names[f"tf_efficientnet_{variant}"] = {
            "variant": variant,
            "padding": "SAME",
            "epsilon": 1e-3,
        }
    for variant in ("b5", "b6", "b7"):
        names[f"efficientnet_{variant}"] |= {"epsilon": 1e-3, "momentum": 0.99}
    return names


FAMILY = Family("efficientnet", EfficientNetConfig, EfficientNet, names=_names(), torch=TORCH)
