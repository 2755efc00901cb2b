# SPDX-License-Identifier: Apache-2.0
"""SqueezeNet 1.0 and 1.1: fire modules between max pooling, a convolution as the classifier.

References: Iandola et al., *SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and
<0.5MB model size* (arXiv 1602.07360), table 1; version 1.1 in the authors' repository
(github.com/forresti/SqueezeNet): 2.4 times fewer MACs at the same accuracy.

Differs from the paper as torchvision does, so that its weights fit: a stem without padding.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers import ops
from efficient_layers.layers import Conv, Fire, List
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.mobile_net import check_images
from efficient_layers.models.torch_names.squeezenet import TORCH


class Row(NamedTuple):
    """A fire module of the paper's table 1; `pooled`: max pooling stands behind it."""

    squeeze: int
    expand1x1: int
    expand3x3: int
    pooled: bool


@dataclasses.dataclass(frozen=True)
class Variant:
    """A version: its stem, which max pooling follows, and its fire modules."""

    stem_features: int
    stem_kernel_size: int
    blocks: tuple[Row, ...]


VARIANTS = {
    "1.0": Variant(
        96,
        7,
        (
            Row(16, 64, 64, pooled=False),
            Row(16, 64, 64, pooled=False),
            Row(32, 128, 128, pooled=True),
            Row(32, 128, 128, pooled=False),
            Row(48, 192, 192, pooled=False),
            Row(48, 192, 192, pooled=False),
            Row(64, 256, 256, pooled=True),
            Row(64, 256, 256, pooled=False),
        ),
    ),
    "1.1": Variant(
        64,
        3,
        (
            Row(16, 64, 64, pooled=False),
            Row(16, 64, 64, pooled=True),
            Row(32, 128, 128, pooled=False),
            Row(32, 128, 128, pooled=True),
            Row(48, 192, 192, pooled=False),
            Row(48, 192, 192, pooled=False),
            Row(64, 256, 256, pooled=False),
            Row(64, 256, 256, pooled=False),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class SqueezeNetConfig:
    """What makes one SqueezeNet. Of `variant` come the fields that are None.

    Attributes:
      variant: "1.0" or "1.1".
      blocks: rows (squeeze, expand1x1, expand3x3, pooled).
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
    """

    variant: str = "1.1"
    num_classes: int = 1000
    in_channels: int = 3
    dropout_rate: float = 0.5
    stem_features: int | None = None
    stem_kernel_size: int | None = None
    blocks: tuple[Row, ...] | None = None

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"squeezenet has no variant {self.variant!r}. {nearest(self.variant, VARIANTS)}"
            )
        for name, value in vars(VARIANTS[self.variant]).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "blocks", tuple(Row(*row) for row in self.blocks or ()))
        if self.num_classes < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "squeezenet expects num_classes >= 0 and 0 <= dropout_rate < 1. "
                f"Got num_classes={self.num_classes}, dropout_rate={self.dropout_rate}."
            )


class SqueezeNet(nnx.Module):
    """Stem, fire modules, dropout, 1x1 convolution to the classes, global mean."""

    def __init__(self, config: SqueezeNetConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        c, kernel = config.stem_features or 1, (config.stem_kernel_size or 1,) * 2
        self.stem = Conv(config.in_channels, c, kernel, 2, padding="VALID", rngs=same)
        blocks = []
        for row in config.blocks or ():
            blocks.append(Fire(c, row.squeeze, row.expand1x1, row.expand3x3, rngs=same))
            c = row.expand1x1 + row.expand3x3
        self.blocks = List(blocks)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = Conv(c, config.num_classes, (1, 1), rngs=same)
        draw_weights(self, self._weight_scale, rngs=rngs)

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
          out: filled with "stem", "blocks/0", ..., "features" (means of the last block) and
            "logits" (means of the classifier, none below 0).
        """
        check_images(self, x, self.config.in_channels)
        out = {} if out is None else out
        out["stem"] = x = jax.nn.relu(self.stem(x))
        x = ops.max_pool(x, 3, 2, ceil=True)
        rows = self.config.blocks or ()
        for index, (block, row) in enumerate(zip(self.blocks, rows, strict=True)):
            with jax.named_scope(f"blocks/{index}"):
                out[f"blocks/{index}"] = x = block(x)
            x = ops.max_pool(x, 3, 2, ceil=True) if row.pooled else x
        out["features"] = jnp.mean(x, axis=(1, 2))
        if self.classifier is None:
            return out["features"]
        x = jax.nn.relu(self.classifier(drop(self.dropout, x, rngs)))
        out["logits"] = x = jnp.mean(x, axis=(1, 2))
        return x

    def _weight_scale(self, layer: nnx.Conv | nnx.Linear) -> float:
        """0.01 for the classifier, else He's sqrt(2 / inputs)."""
        inputs = math.prod(layer.kernel[...].shape[:-1])
        return 0.01 if layer is self.classifier else math.sqrt(2 / inputs)


FAMILY = Family(
    "squeezenet",
    SqueezeNetConfig,
    SqueezeNet,
    names={"squeezenet1_0": {"variant": "1.0"}, "squeezenet1_1": {"variant": "1.1"}},
    torch=TORCH,
)
