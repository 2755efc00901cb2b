# SPDX-License-Identifier: Apache-2.0
"""ShuffleNetV2: half of the channels pass by, then all are shuffled.

Reference: Ma, Zhang, Zheng and Sun, *ShuffleNet V2: Practical Guidelines for Efficient CNN
Architecture Design*, ECCV 2018 (arXiv 1807.11164), table 5.

Batch normalisation has momentum 0.9 (torch's 0.1) and epsilon 1e-5, as in torchvision.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers import ops
from efficient_layers.layers import ConvBNAct, List, ShuffleUnit
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, he_normal_fan_out, placeholder
from efficient_layers.models.mobile_net import ACTIVATIONS, check_images
from efficient_layers.models.torch_names.shufflenet_v2 import TORCH


class Stage(NamedTuple):
    """A row of the paper's table 5: `repeats` units, the first one with `strides`."""

    channels: int
    repeats: int
    strides: int


def _stages(*channels: int) -> tuple[Stage, ...]:
    return tuple(Stage(c, repeats, 2) for c, repeats in zip(channels, (4, 8, 4), strict=True))


STAGES = {
    "0.5": _stages(48, 96, 192),
    "1.0": _stages(116, 232, 464),
    "1.5": _stages(176, 352, 704),
    "2.0": _stages(244, 488, 976),
}


@dataclasses.dataclass(frozen=True)
class ShuffleNetV2Config:
    """What makes one ShuffleNetV2.

    Attributes:
      variant: the width, "0.5" to "2.0": the `stages` where none are given.
      stages: rows (channels, repeats, strides), channels even.
      head_features: of the 1x1 convolution behind the units; None: 2048 at width 2.0, else 1024.
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
    """

    variant: str = "1.0"
    num_classes: int = 1000
    in_channels: int = 3
    stem_features: int = 24
    stages: tuple[Stage, ...] | None = None
    kernel_size: int = 3
    head_features: int | None = None
    act: str = "relu"
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        choices: dict[str, Mapping[str, Any]] = {"variant": STAGES, "act": ACTIVATIONS}
        for field, known in choices.items():
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"shufflenet_v2 has no {field} {value!r}. {nearest(value, known)}")
        stages = STAGES[self.variant] if self.stages is None else self.stages
        object.__setattr__(self, "stages", tuple(Stage(*row) for row in stages))
        if self.head_features is None:
            object.__setattr__(self, "head_features", 2048 if self.variant == "2.0" else 1024)
        if self.num_classes < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "shufflenet_v2 expects num_classes >= 0 and 0 <= dropout_rate < 1. "
                f"Got num_classes={self.num_classes}, dropout_rate={self.dropout_rate}."
            )


class ShuffleNetV2(nnx.Module):
    """Stem, max pooling, shuffle units, 1x1 head, global mean, classifier."""

    def __init__(self, config: ShuffleNetV2Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        act, c = ACTIVATIONS[config.act], config.stem_features
        self.stem = ConvBNAct(config.in_channels, c, 3, 2, act=act, rngs=same)
        blocks = []
        for stage in config.stages or ():
            for index in range(stage.repeats):
                blocks.append(
                    ShuffleUnit(
                        c,
                        stage.channels,
                        strides=stage.strides if index == 0 else 1,
                        kernel_size=config.kernel_size,
                        act=act,
                        rngs=same,
                    )
                )
                c = stage.channels
        self.blocks = List(blocks)
        head = config.head_features or c
        self.head = ConvBNAct(c, head, 1, act=act, rngs=same)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(head, config.num_classes, rngs=same)
        draw_weights(self, _weight_scale, rngs=rngs)

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
          out: filled with "stem", "blocks/0", ..., "head", "features" and "logits".
        """
        check_images(self, x, self.config.in_channels)
        out = {} if out is None else out
        out["stem"] = x = self.stem(x)
        x = ops.max_pool(x, 3, 2, padding=1)
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                out[f"blocks/{index}"] = x = block(x)
        out["head"] = x = self.head(x)
        out["features"] = x = jnp.mean(x, axis=(1, 2))
        if self.classifier is None:
            return x
        out["logits"] = x = self.classifier(drop(self.dropout, x, rngs))
        return x


def _weight_scale(layer: nnx.Conv | nnx.Linear) -> float:
    return 0.01 if isinstance(layer, nnx.Linear) else he_normal_fan_out(layer)


FAMILY = Family(
    "shufflenet_v2",
    ShuffleNetV2Config,
    ShuffleNetV2,
    names={f"shufflenet_v2_x{w.replace('.', '_')}": {"variant": w} for w in STAGES},
    torch=TORCH,
)
