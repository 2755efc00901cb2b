# SPDX-License-Identifier: Apache-2.0
"""VGG: stages of 3x3 convolutions with max pooling behind, three dense layers.

Reference: Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image
Recognition*, ICLR 2015 (arXiv 1409.1556), table 1, columns A, B, D and E.

Differs from the paper where torchvision does too: any image size, by adaptive average pooling to
7x7 before the dense layers; batch normalisation in the `_bn` variants, behind convolutions that
keep their bias. timm's VGG has the same weights and, up to 224x224, the same logits: above, it runs
the dense layers over all 7x7 windows.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers import ops
from efficient_layers.layers import BatchNorm, Conv, List
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, he_normal_fan_out, placeholder
from efficient_layers.models.mobile_net import ACTIVATIONS, check_images
from efficient_layers.models.torch_names.vgg import TORCH
from efficient_layers.ops.adaptive_pool import adaptive_avg_pool


class Stage(NamedTuple):
    """`repeats` convolutions to so many channels, then 2x2 max pooling with stride 2."""

    channels: int
    repeats: int


def _stages(*repeats: int) -> tuple[Stage, ...]:
    return tuple(Stage(*row) for row in zip((64, 128, 256, 512, 512), repeats, strict=True))


STAGES = {
    "11": _stages(1, 1, 2, 2, 2),
    "13": _stages(2, 2, 2, 2, 2),
    "16": _stages(2, 2, 3, 3, 3),
    "19": _stages(2, 2, 4, 4, 4),
}


@dataclasses.dataclass(frozen=True)
class VGGConfig:
    """What makes one VGG.

    Attributes:
      variant: the depth, "11" to "19": the `stages` where none are given.
      stages: rows (channels, repeats).
      pool_size: the map is averaged to pool_size x pool_size before the dense layers.
      hidden_features: of both dense layers before the classifier.
      num_classes: 0 leaves the classifier out; the model then returns hidden features.
    """

    variant: str = "16"
    num_classes: int = 1000
    in_channels: int = 3
    stages: tuple[Stage, ...] | None = None
    batch_norm: bool = False
    act: str = "relu"
    pool_size: int = 7
    hidden_features: int = 4096
    dropout_rate: float = 0.5

    def __post_init__(self) -> None:
        choices: dict[str, Mapping[str, Any]] = {"variant": STAGES, "act": ACTIVATIONS}
        for field, known in choices.items():
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"vgg has no {field} {value!r}. {nearest(value, known)}")
        stages = STAGES[self.variant] if self.stages is None else self.stages
        object.__setattr__(self, "stages", tuple(Stage(*row) for row in stages))
        if self.num_classes < 0 or self.pool_size < 1 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "vgg expects num_classes >= 0, pool_size >= 1 and 0 <= dropout_rate < 1. Got "
                f"num_classes={self.num_classes}, pool_size={self.pool_size}, "
                f"dropout_rate={self.dropout_rate}."
            )


class Unit(nnx.Module):
    """3x3 convolution with bias, batch normalisation where asked for, activation."""

    def __init__(self, config: VGGConfig, c: int, channels: int, *, rngs: nnx.Rngs) -> None:
        self.conv = Conv(c, channels, (3, 3), padding=1, rngs=rngs)
        self.bn: BatchNorm | None = nnx.data(None)
        if config.batch_norm:
            self.bn = BatchNorm(channels, momentum=0.9, unbiased_running_var=True, rngs=rngs)
        self.act = ACTIVATIONS[config.act]

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        x = self.conv(x)
        return self.act(x if self.bn is None else self.bn(x))


class VGG(nnx.Module):
    """Convolutions with max pooling between, two dense layers with dropout, classifier."""

    def __init__(self, config: VGGConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        units, c = [], config.in_channels
        for stage in config.stages or ():
            for _ in range(stage.repeats):
                units.append(Unit(config, c, stage.channels, rngs=same))
                c = stage.channels
        self.blocks = List(units)
        hidden = config.hidden_features
        self.dense1 = nnx.Linear(config.pool_size**2 * c, hidden, rngs=same)
        self.dense2 = nnx.Linear(hidden, hidden, rngs=same)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(hidden, config.num_classes, rngs=same)
        draw_weights(self, _weight_scale, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, hidden_features) for num_classes = 0.

        Args:
          rngs: keys of the dropouts; needed in train mode where `dropout_rate` > 0.
          out: filled with "blocks/0", ..., "pooled", "dense1", "features" (of dense2) and "logits".
        """
        self._check(x)
        out = {} if out is None else out
        ends = self._stage_ends()
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                out[f"blocks/{index}"] = x = block(x)
            x = ops.max_pool(x, 2, 2) if index in ends else x
        out["pooled"] = x = adaptive_avg_pool(x, self.config.pool_size)
        act = ACTIVATIONS[self.config.act]
        x = x.reshape(x.shape[0], -1)  # b h w c -> b (h w c)
        out["dense1"] = x = act(self.dense1(x))
        out["features"] = x = act(self.dense2(drop(self.dropout, x, rngs)))
        if self.classifier is None:
            return x
        out["logits"] = x = self.classifier(drop(self.dropout, x, rngs))
        return x

    def _stage_ends(self) -> set[int]:
        """Indices of the units behind which the image is halved."""
        counts = [stage.repeats for stage in self.config.stages or ()]
        return {sum(counts[: stage + 1]) - 1 for stage in range(len(counts))}

    def _check(self, x: jax.Array) -> None:
        check_images(self, x, self.config.in_channels)
        least = 2 ** len(self.config.stages or ())
        if min(x.shape[1:3]) < least:
            raise ValueError(
                f"vgg halves an image {len(self.config.stages or ())} times: it expects at least "
                f"{least}x{least}. Got {x.shape}. Resize the images, or create with fewer stages."
            )


def _weight_scale(layer: nnx.Conv | nnx.Linear) -> float:
    return 0.01 if isinstance(layer, nnx.Linear) else he_normal_fan_out(layer)


FAMILY = Family(
    "vgg",
    VGGConfig,
    VGG,
    names={f"vgg{variant}": {"variant": variant} for variant in STAGES}
    | {f"vgg{variant}_bn": {"variant": variant, "batch_norm": True} for variant in STAGES},
    torch=TORCH,
)
