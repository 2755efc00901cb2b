# SPDX-License-Identifier: Apache-2.0
"""ConvNeXt: a ResNet's stages with a transformer's blocks, depthwise 7x7 in attention's place.

Reference: Liu, Mao, Wu, Feichtenhofer, Darrell and Xie, *A ConvNet for the 2020s*, CVPR 2022
(arXiv 2201.03545), section 3 (tiny, small, base, large); atto to nano and their overlapping stems
are Wightman's in timm (`timm/models/convnext.py`).

As in timm and torchvision, so that their weights fit: exact GELU, epsilon 1e-6, the last norm after
the global mean.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers import Conv, ConvNeXtBlock, LayerNorm, List, make_divisible
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.torch_names.convnext import TORCH


class Stage(NamedTuple):
    """`repeats` blocks of `channels`; before all but the first stage, the image is halved."""

    channels: int
    repeats: int


def _stages(channels: int, *repeats: int) -> tuple[Stage, ...]:
    return tuple(Stage(channels << index, count) for index, count in enumerate(repeats))


VARIANTS = {
    "atto": _stages(40, 2, 2, 6, 2),
    "femto": _stages(48, 2, 2, 6, 2),
    "pico": _stages(64, 2, 2, 6, 2),
    "nano": _stages(80, 2, 2, 8, 2),
    "tiny": _stages(96, 3, 3, 9, 3),
    "small": _stages(96, 3, 3, 27, 3),
    "base": _stages(128, 3, 3, 27, 3),
    "large": _stages(192, 3, 3, 27, 3),
}
STEMS = ("patch", "overlap", "overlap_tiered")

FROM_VARIANT: Any = None


@dataclasses.dataclass(frozen=True)
class ConvNeXtConfig:
    """What makes one ConvNeXt. A field not given takes the value of its variant.

    Attributes:
      stages: rows (channels, repeats).
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
      stem: "patch" is one 4x4 convolution with strides 4; "overlap" two 3x3 with strides 2, of
        which the first has half of the channels in "overlap_tiered".
      layer_scale: the first value of a block's `gamma`.
      drop_path_rate: of the last block; it grows linearly from 0.
      dropout_rate: before the classifier.
      conv_mlp: timm stores `expand` and `project` as 1x1 convolutions; of weight files alone.
    """

    variant: str = "tiny"
    stages: tuple[Stage, ...] = FROM_VARIANT
    num_classes: int = 1000
    in_channels: int = 3
    stem: str = "patch"
    kernel_size: int = 7
    layer_scale: float = 1e-6
    drop_path_rate: float = 0.0
    dropout_rate: float = 0.0
    epsilon: float = 1e-6
    conv_mlp: bool = False

    def __post_init__(self) -> None:
        for field, value, known in (
            ("variant", self.variant, VARIANTS),
            ("stem", self.stem, STEMS),
        ):
            if value not in known:
                raise ValueError(f"convnext has no {field} {value!r}. {nearest(value, known)}")
        stages = VARIANTS[self.variant] if self.stages is FROM_VARIANT else self.stages
        object.__setattr__(self, "stages", tuple(Stage(*row) for row in stages))
        in_range = self.num_classes >= 0 and 0 <= self.dropout_rate < 1
        if not in_range or not self.stages or any(min(row) < 1 for row in self.stages):
            raise ValueError(
                "convnext expects num_classes >= 0, 0 <= dropout_rate < 1 and stages of at least 1 "
                f"channel and block. Got num_classes={self.num_classes}, "
                f"dropout_rate={self.dropout_rate}, stages={self.stages}."
            )


class Downsample(nnx.Module):
    """y = conv2x2(norm(x)) with strides 2: half the height and width (arXiv 2201.03545, 2.6)."""

    def __init__(self, c: int, channels: int, *, epsilon: float, rngs: nnx.Rngs) -> None:
        self.norm = LayerNorm(c, epsilon=epsilon, rngs=rngs)
        self.conv = Conv(c, channels, (2, 2), strides=2, padding="VALID", rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        return self.conv(self.norm(x))


class ConvNeXt(nnx.Module):
    """Stem, stages of blocks with downsampling between, global mean, norm, classifier."""

    def __init__(self, config: ConvNeXtConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        epsilon, stages = config.epsilon, config.stages
        self.stem = List(_stem(config, rngs=same))
        self.stem_norm = LayerNorm(stages[0].channels, epsilon=epsilon, rngs=same)
        depth = sum(stage.repeats for stage in stages)
        widths = [stage.channels for stage in stages for _ in range(stage.repeats)]
        self.blocks = List(
            ConvNeXtBlock(
                c,
                kernel_size=config.kernel_size,
                layer_scale=config.layer_scale,
                drop_path=config.drop_path_rate * index / max(1, depth - 1),
                epsilon=epsilon,
                rngs=same,
            )
            for index, c in enumerate(widths)
        )
        self.downsamples = List(
            Downsample(before.channels, after.channels, epsilon=epsilon, rngs=same)
            for before, after in itertools.pairwise(stages)
        )
        self.norm = LayerNorm(stages[-1].channels, epsilon=epsilon, rngs=same)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(stages[-1].channels, config.num_classes, rngs=same)
        # timm's and torchvision's truncated normal is cut at 100 deviations: a normal one.
        draw_weights(self, lambda layer: 0.02, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, channels) where num_classes is 0.

        Args:
          rngs: keys of drop path and dropout; needed in train mode where a rate is above 0.
          out: filled with "stem", "blocks/0", ..., "features" and "logits".
        """
        self._check(x)
        out = {} if out is None else out
        for layer in self.stem:
            x = layer(x)
        out["stem"] = x = self.stem_norm(x)
        index = 0
        for number, stage in enumerate(self.config.stages):
            if number:
                with jax.named_scope(f"downsamples/{number - 1}"):
                    x = self.downsamples[number - 1](x)
            for _ in range(stage.repeats):
                with jax.named_scope(f"blocks/{index}"):
                    out[f"blocks/{index}"] = x = self.blocks[index](x, rngs=rngs)
                index += 1
        out["features"] = x = self.norm(jnp.mean(x, axis=(1, 2)))
        if self.classifier is None:
            return x
        out["logits"] = x = self.classifier(drop(self.dropout, x, rngs))
        return x

    def _check(self, x: jax.Array) -> None:
        least, c = 2 << len(self.config.stages), self.config.in_channels
        if x.ndim != 4 or x.shape[-1] != c or min(x.shape[1:3]) < least:
            raise ValueError(
                f"This ConvNeXt expects images of shape (b, h, w, {c}), h and w at least {least}. "
                f"Got {x.shape}. Enlarge them, or pass fewer stages (or in_channels) to create."
            )


def _stem(config: ConvNeXtConfig, *, rngs: nnx.Rngs) -> list[Conv]:
    c, channels = config.in_channels, config.stages[0].channels
    if config.stem == "patch":
        return [Conv(c, channels, (4, 4), strides=4, padding="VALID", rngs=rngs)]
    first = make_divisible(channels // 2) if config.stem == "overlap_tiered" else channels
    return [
        Conv(c, first, (3, 3), strides=2, padding=1, rngs=rngs),
        Conv(first, channels, (3, 3), strides=2, padding=1, rngs=rngs),
    ]


def _timm_names() -> dict[str, dict[str, Any]]:
    names: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        small = variant in ("atto", "femto", "pico", "nano")
        fields = {"variant": variant, "conv_mlp": True} if small else {"variant": variant}
        names[f"convnext_{variant}"] = fields
        if small:
            stem = "overlap" if variant == "nano" else "overlap_tiered"
            names[f"convnext_{variant}_ols"] = fields | {"stem": stem}
    return names


# torchvision's names are among timm's.
FAMILY = Family("convnext", ConvNeXtConfig, ConvNeXt, names=_timm_names(), torch=TORCH)
