# SPDX-License-Identifier: Apache-2.0
"""MobileNetV3: a searched table of inverted residuals, hard-swish, squeeze-and-excitation.

Reference: Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le and Adam,
*Searching for MobileNetV3*, ICCV 2019 (arXiv 1905.02244), tables 1 and 2.

Differs from the paper where torchvision and timm do too, so that their weights fit: the small
network's head has 1024 features (`head_features=1280` is the paper's and TF-Slim's), padding is
symmetric (`padding="SAME"` is TensorFlow's). At a width other than 1 hidden channels follow the
block's rounded input, as in TF-Slim and timm, and the head keeps its width; torchvision, which
names no such variant, would scale both.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers import ops
from efficient_layers.layers import ConvBNAct, InvertedResidual, List, make_divisible
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, he_normal_fan_out, placeholder
from efficient_layers.models.mobile_net import ACTIVATIONS, PADDINGS, check_choices, check_images
from efficient_layers.models.torch_names.mobilenet_v3 import TORCH


class Block(NamedTuple):
    """A row of the paper's tables 1 and 2."""

    kernel_size: int
    hidden: int
    channels: int
    se: bool
    act: str
    strides: int


LARGE = (
    Block(3, 16, 16, False, "relu", 1),
    Block(3, 64, 24, False, "relu", 2),
    Block(3, 72, 24, False, "relu", 1),
    Block(5, 72, 40, True, "relu", 2),
    Block(5, 120, 40, True, "relu", 1),
    Block(5, 120, 40, True, "relu", 1),
    Block(3, 240, 80, False, "hard_swish", 2),
    Block(3, 200, 80, False, "hard_swish", 1),
    Block(3, 184, 80, False, "hard_swish", 1),
    Block(3, 184, 80, False, "hard_swish", 1),
    Block(3, 480, 112, True, "hard_swish", 1),
    Block(3, 672, 112, True, "hard_swish", 1),
    Block(5, 672, 160, True, "hard_swish", 2),
    Block(5, 960, 160, True, "hard_swish", 1),
    Block(5, 960, 160, True, "hard_swish", 1),
)

SMALL = (
    Block(3, 16, 16, True, "relu", 2),
    Block(3, 72, 24, False, "relu", 2),
    Block(3, 88, 24, False, "relu", 1),
    Block(5, 96, 40, True, "hard_swish", 2),
    Block(5, 240, 40, True, "hard_swish", 1),
    Block(5, 240, 40, True, "hard_swish", 1),
    Block(5, 120, 48, True, "hard_swish", 1),
    Block(5, 144, 48, True, "hard_swish", 1),
    Block(5, 288, 96, True, "hard_swish", 2),
    Block(5, 576, 96, True, "hard_swish", 1),
    Block(5, 576, 96, True, "hard_swish", 1),
)


def minimalistic(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """TF-Slim's "minimalistic" table: 3x3 kernels, ReLU, no squeeze-and-excitation."""
    return tuple(row._replace(kernel_size=3, se=False, act="relu") for row in blocks)


@dataclasses.dataclass(frozen=True)
class Variant:
    """The rows of one table with the layers around them."""

    blocks: tuple[Block, ...]
    last_features: int
    head_features: int
    act: str = "hard_swish"


VARIANTS = {
    "large": Variant(LARGE, last_features=960, head_features=1280),
    "small": Variant(SMALL, last_features=576, head_features=1024),
    "large_minimalistic": Variant(minimalistic(LARGE), 960, 1280, act="relu"),
    "small_minimalistic": Variant(minimalistic(SMALL), 576, 1024, act="relu"),
}

FROM_VARIANT: Any = None


@dataclasses.dataclass(frozen=True)
class MobileNetV3Config:
    """What makes one MobileNetV3. A field not given takes the value of its variant.

    Attributes:
      width: multiplies the channels of stem (not below 0.75), blocks and last convolution, rounded
        by `make_divisible(., 8)`.
      num_classes: 0 leaves the classifier out; the model then returns `head_features` features.
      variant: "large", "small", "large_minimalistic" or "small_minimalistic".
      blocks: rows (kernel_size, hidden, channels, se, act, strides) before `width` is applied.
      last_features: of the 1x1 convolution before the mean, before `width` is applied.
      act: of stem, last convolution and head.
      padding: "torch" or "SAME".
    """

    width: float = 1.0
    num_classes: int = 1000
    in_channels: int = 3
    dropout_rate: float = 0.2
    variant: str = "large"
    stem_features: int = 16
    blocks: tuple[Block, ...] = FROM_VARIANT
    last_features: int = FROM_VARIANT
    head_features: int = FROM_VARIANT
    act: str = FROM_VARIANT
    padding: str = "torch"
    momentum: float = 0.99
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"mobilenet_v3 has no variant {self.variant!r}. {nearest(self.variant, VARIANTS)}"
            )
        for name, value in vars(VARIANTS[self.variant]).items():
            if getattr(self, name) is FROM_VARIANT:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "blocks", tuple(Block(*row) for row in self.blocks))
        for act in (self.act, *(row.act for row in self.blocks)):
            check_choices("mobilenet_v3", act, self.padding)
        if self.width <= 0 or self.num_classes < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "mobilenet_v3 expects width > 0, num_classes >= 0 and 0 <= dropout_rate < 1. "
                f"Got width={self.width}, num_classes={self.num_classes}, "
                f"dropout_rate={self.dropout_rate}."
            )

    def scaled(self, channels: float) -> int:
        """The channel count at this width."""
        return make_divisible(channels * self.width)


class MobileNetV3(nnx.Module):
    """Stem, inverted residuals, 1x1 `last`, mean, `head`, dropout, classifier.

    The head comes after the mean, where it costs a 49th (the paper's section 5.1).
    """

    def __init__(self, config: MobileNetV3Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        norm: dict[str, Any] = {"momentum": config.momentum, "epsilon": config.epsilon}
        padding, act = PADDINGS[config.padding], ACTIVATIONS[config.act]
        c = config.stem_features if config.width < 0.75 else config.scaled(config.stem_features)
        self.stem = ConvBNAct(
            config.in_channels, c, 3, 2, padding=padding, act=act, **norm, rngs=same
        )
        blocks, table_c = [], config.stem_features
        for row in config.blocks:
            # 72 of 24 channels is 3 times the block's input, whatever `width` made of it.
            hidden = c if row.hidden == table_c else make_divisible(row.hidden / table_c * c)
            blocks.append(
                InvertedResidual(
                    c,
                    config.scaled(row.channels),
                    strides=row.strides,
                    expand_ratio=hidden / c,
                    kernel_size=row.kernel_size,
                    padding=padding,
                    act=ACTIVATIONS[row.act],
                    se_features=make_divisible(hidden / 4) if row.se else 0,
                    se_act=jax.nn.relu,
                    se_gate=ops.hard_sigmoid,
                    **norm,
                    rngs=same,
                )
            )
            c, table_c = config.scaled(row.channels), row.channels
        self.blocks = List(blocks)
        last = config.scaled(config.last_features)
        self.last = ConvBNAct(c, last, 1, act=act, **norm, rngs=same)
        self.head = nnx.Linear(last, config.head_features, rngs=same)
        self.act = act
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(config.head_features, config.num_classes, rngs=same)
        draw_weights(self, _weight_scale, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, head_features) where num_classes is 0.

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


def _weight_scale(layer: nnx.Conv | nnx.Linear) -> float:
    return 0.01 if isinstance(layer, nnx.Linear) else he_normal_fan_out(layer)


# timm keeps torch's batch normalisation but in `tf_` models, whose weights are TensorFlow's.
_TIMM = {"momentum": 0.9, "epsilon": 1e-5}
_TF = {"momentum": 0.9, "padding": "SAME"}

FAMILY = Family(
    "mobilenet_v3",
    MobileNetV3Config,
    MobileNetV3,
    names={
        "mobilenet_v3_large": {},
        "mobilenet_v3_small": {"variant": "small"},
        "mobilenetv3_large_075": {"width": 0.75, **_TIMM},
        "mobilenetv3_large_100": _TIMM,
        "mobilenetv3_small_050": {"variant": "small", "width": 0.5, **_TIMM},
        "mobilenetv3_small_075": {"variant": "small", "width": 0.75, **_TIMM},
        "mobilenetv3_small_100": {"variant": "small", **_TIMM},
        "tf_mobilenetv3_large_075": {"width": 0.75, **_TF},
        "tf_mobilenetv3_large_100": _TF,
        "tf_mobilenetv3_large_minimal_100": {"variant": "large_minimalistic", **_TF},
        "tf_mobilenetv3_small_075": {"variant": "small", "width": 0.75, **_TF},
        "tf_mobilenetv3_small_100": {"variant": "small", **_TF},
        "tf_mobilenetv3_small_minimal_100": {"variant": "small_minimalistic", **_TF},
    },
    torch=TORCH,
)
