# SPDX-License-Identifier: Apache-2.0
"""ResNet, ResNeXt and wide ResNet: blocks that add what they compute to their input.

References: He, Zhang, Ren and Sun, *Deep Residual Learning for Image Recognition* (arXiv
1512.03385), tables 1 and 6, section 4.2; Xie et al., *Aggregated Residual Transformations for Deep
Neural Networks* (arXiv 1611.05431), table 1; Zagoruyko and Komodakis, *Wide Residual Networks*
(arXiv 1605.07146).

Differs from the paper as torchvision and timm do, so that their weights fit: the stride of a
bottleneck is in its 3x3 convolution ("ResNet v1.5"), not in the first 1x1.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers import ops
from efficient_layers.layers import ConvBNAct, List
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, he_normal_fan_out, placeholder
from efficient_layers.models.mobile_net import ACTIVATIONS, check_images
from efficient_layers.models.torch_names.resnet import TORCH


class Stage(NamedTuple):
    """A row of the paper's table 1: `repeats` blocks, the first one with `strides`."""

    channels: int
    repeats: int
    strides: int


@dataclasses.dataclass(frozen=True)
class Variant:
    """The network of one depth; `stem_pool`: 3x3 max pooling with stride 2 behind the stem."""

    block: str
    stages: tuple[Stage, ...]
    stem_kernel_size: int = 7
    stem_features: int = 64
    stem_strides: int = 2
    stem_pool: bool = True
    shortcut: str = "projection"
    num_classes: int = 1000


def _imagenet(block: str, *repeats: int) -> Variant:
    rows = zip((64, 128, 256, 512), repeats, (1, 2, 2, 2), strict=True)
    return Variant(block, tuple(Stage(*row) for row in rows))


def _cifar(n: int) -> Variant:
    """Section 4.2: 6n + 2 layers on 32x32 images, shortcuts without parameters (option A)."""
    stages = (Stage(16, n, 1), Stage(32, n, 2), Stage(64, n, 2))
    return Variant("basic", stages, 3, 16, 1, False, "pad", 10)


VARIANTS = {
    "18": _imagenet("basic", 2, 2, 2, 2),
    "26": _imagenet("bottleneck", 2, 2, 2, 2),
    "34": _imagenet("basic", 3, 4, 6, 3),
    "50": _imagenet("bottleneck", 3, 4, 6, 3),
    "101": _imagenet("bottleneck", 3, 4, 23, 3),
    "152": _imagenet("bottleneck", 3, 8, 36, 3),
    "cifar20": _cifar(3),
    "cifar32": _cifar(5),
    "cifar44": _cifar(7),
    "cifar56": _cifar(9),
    "cifar110": _cifar(18),
}

FROM_VARIANT: Any = None


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """What makes one ResNet. A field not given takes the value of its variant.

    Attributes:
      variant: the depth; "cifar20" and so on are those for 32x32 images.
      block: "basic" (two 3x3) or "bottleneck" (1x1, 3x3, 1x1 to four times the channels).
      stages: rows (channels, repeats, strides).
      groups, width_per_group: the 3x3 of a bottleneck has channels x width_per_group / 64 x groups
        channels in so many groups.
      shortcut: where shapes change: "projection" (option B) or "pad" (option A: every strides-th
        position, zeros for the new channels).
      zero_init_residual: the last scale of each block starts at 0 (arXiv 1706.02677, section 5.1).
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
    """

    variant: str = "50"
    num_classes: int = FROM_VARIANT
    in_channels: int = 3
    block: str = FROM_VARIANT
    stages: tuple[Stage, ...] = FROM_VARIANT
    groups: int = 1
    width_per_group: int = 64
    stem_kernel_size: int = FROM_VARIANT
    stem_features: int = FROM_VARIANT
    stem_strides: int = FROM_VARIANT
    stem_pool: bool = FROM_VARIANT
    shortcut: str = FROM_VARIANT
    act: str = "relu"
    dropout_rate: float = 0.0
    zero_init_residual: bool = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"resnet has no variant {self.variant!r}. {nearest(self.variant, VARIANTS)}"
            )
        for name, value in vars(VARIANTS[self.variant]).items():
            if getattr(self, name) is FROM_VARIANT:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "stages", tuple(Stage(*row) for row in self.stages))
        choices = {"block": BLOCKS, "shortcut": ("projection", "pad"), "act": ACTIVATIONS}
        for field, known in choices.items():
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"resnet has no {field} {value!r}. {nearest(value, known)}")
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, 64):
            raise ValueError(
                "resnet's basic block knows groups=1 and width_per_group=64 alone. Got "
                f"{self.groups} and {self.width_per_group}: take block='bottleneck'."
            )
        if self.num_classes < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "resnet expects num_classes >= 0 and 0 <= dropout_rate < 1. "
                f"Got num_classes={self.num_classes}, dropout_rate={self.dropout_rate}."
            )


class Block(nnx.Module):
    """y = act(residual(x) + shortcut(x)), the activation of the residual's last layer left out."""

    convs: tuple[str, ...]

    def __init__(
        self, config: ResNetConfig, c: int, channels: int, strides: int, *, rngs: nnx.Rngs
    ):
        self.act = ACTIVATIONS[config.act]
        out = self.add_convs(config, c, channels, strides, rngs)
        self.strides, self.added = strides, out - c
        self.shortcut: ConvBNAct | None = nnx.data(None)
        if (strides > 1 or out != c) and config.shortcut == "projection":
            self.shortcut = ConvBNAct(c, out, 1, strides, act=None, rngs=rngs)
        if config.zero_init_residual:
            scale = getattr(self, self.convs[-1]).bn.scale
            scale.set_value(jnp.zeros_like(scale[...]))

    def add_convs(
        self, config: ResNetConfig, c: int, channels: int, strides: int, rngs: nnx.Rngs
    ) -> int:
        """Sets `convs` and returns the channels of the last one."""
        raise NotImplementedError

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        y = x
        for name in self.convs:
            y = getattr(self, name)(y)
        return self.act(y + self._short(x))

    def _short(self, x: jax.Array) -> jax.Array:
        if self.shortcut is not None:
            return self.shortcut(x)
        x = x[:, :: self.strides, :: self.strides]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.added))) if self.added else x


class BasicBlock(Block):
    """3x3 with the strides, 3x3."""

    convs = ("conv1", "conv2")

    def add_convs(self, config, c, channels, strides, rngs):
        self.conv1 = ConvBNAct(c, channels, 3, strides, act=self.act, rngs=rngs)
        self.conv2 = ConvBNAct(channels, channels, 3, act=None, rngs=rngs)
        return channels


class Bottleneck(Block):
    """1x1, 3x3 with the strides and the groups, 1x1 to four times the channels."""

    convs = ("conv1", "conv2", "conv3")

    def add_convs(self, config, c, channels, strides, rngs):
        groups = config.groups
        wide = int(channels * config.width_per_group / 64) * groups
        self.conv1 = ConvBNAct(c, wide, 1, act=self.act, rngs=rngs)
        self.conv2 = ConvBNAct(
            wide, wide, 3, strides, feature_group_count=groups, act=self.act, rngs=rngs
        )
        self.conv3 = ConvBNAct(wide, 4 * channels, 1, act=None, rngs=rngs)
        return 4 * channels


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nnx.Module):
    """Stem, max pooling, residual blocks, global mean, classifier."""

    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        c = config.stem_features
        self.stem = ConvBNAct(
            config.in_channels,
            c,
            config.stem_kernel_size,
            config.stem_strides,
            act=ACTIVATIONS[config.act],
            rngs=same,
        )
        block, blocks = BLOCKS[config.block], []
        for stage in config.stages:
            for index in range(stage.repeats):
                strides = stage.strides if index == 0 else 1
                blocks.append(block(config, c, stage.channels, strides, rngs=same))
                c += blocks[-1].added
        self.blocks = List(blocks)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(c, config.num_classes, rngs=same)
        draw_weights(self, _weight_scale, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, d) where num_classes is 0.

        Args:
          rngs: key of the dropout; needed in train mode where `dropout_rate` > 0.
          out: filled with "stem", "blocks/0", ..., "features" and "logits".
        """
        check_images(self, x, self.config.in_channels)
        out = {} if out is None else out
        out["stem"] = x = self.stem(x)
        x = ops.max_pool(x, 3, 2, padding=1) if self.config.stem_pool else x
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                out[f"blocks/{index}"] = x = block(x)
        out["features"] = x = jnp.mean(x, axis=(1, 2))
        if self.classifier is None:
            return x
        out["logits"] = x = self.classifier(drop(self.dropout, x, rngs))
        return x


def _weight_scale(layer: nnx.Conv | nnx.Linear) -> float:
    """He's for convolutions; 1 / sqrt(3 inputs), torch's default, for the classifier."""
    if isinstance(layer, nnx.Linear):
        return (3 * layer.in_features) ** -0.5
    return he_normal_fan_out(layer)


def _grouped(variant: str, groups: int, width_per_group: int) -> dict[str, Any]:
    return {"variant": variant, "groups": groups, "width_per_group": width_per_group}


FAMILY = Family(
    "resnet",
    ResNetConfig,
    ResNet,
    names={
        **{f"resnet{name.removeprefix('cifar')}": {"variant": name} for name in VARIANTS},
        "resnext50_32x4d": _grouped("50", 32, 4),
        "resnext101_32x4d": _grouped("101", 32, 4),
        "resnext101_32x8d": _grouped("101", 32, 8),
        "resnext101_64x4d": _grouped("101", 64, 4),
        "wide_resnet50_2": _grouped("50", 1, 128),
        "wide_resnet101_2": _grouped("101", 1, 128),
    },
    torch=TORCH,
)
