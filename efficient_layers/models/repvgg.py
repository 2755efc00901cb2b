# SPDX-License-Identifier: Apache-2.0
"""RepVGG: three branches a block to train, one 3x3 convolution a block to run.

Reference: Ding, Zhang, Ma, Han, Ding and Sun, *RepVGG: Making VGG-style ConvNets Great Again*,
CVPR 2021 (arXiv 2101.03697), tables 2 and 3; ungrouped variants.

    model = el.models.create("repvgg_a0", weights="repvgg_a0.safetensors", rngs=nnx.Rngs(0))
    model.reparameterise()  # equal outputs in eval mode, a plain chain of convolutions
    el.models.create("repvgg_a0", deploy=True, rngs=nnx.Rngs(0))  # the same chain, untrained
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers import List, RepVGGBlock
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, he_normal_fan_out, placeholder
from efficient_layers.models.mobile_net import ACTIVATIONS, check_images
from efficient_layers.models.torch_names.repvgg import TORCH


class Stage(NamedTuple):
    """A row of the paper's table 2: `repeats` blocks, the first one with `strides`."""

    channels: int
    repeats: int
    strides: int


def _stages(repeats: tuple[int, ...], a: float, b: float) -> tuple[Stage, ...]:
    """Table 2: widths 64a, 128a, 256a and 512b."""
    channels = (64 * a, 128 * a, 256 * a, 512 * b)
    return tuple(Stage(int(c), r, 2) for c, r in zip(channels, repeats, strict=True))


_A, _B = (2, 4, 14, 1), (4, 6, 16, 1)
STAGES = {
    "a0": _stages(_A, 0.75, 2.5),
    "a1": _stages(_A, 1, 2.5),
    "a2": _stages(_A, 1.5, 2.75),
    "b0": _stages(_B, 1, 2.5),
    "b1": _stages(_B, 2, 4),
    "b2": _stages(_B, 2.5, 5),
    "b3": _stages(_B, 3, 5),
}


@dataclasses.dataclass(frozen=True)
class RepVGGConfig:
    """What makes one RepVGG.

    Attributes:
      variant: "a0" to "b3": the `stages` where none are given.
      stages: rows (channels, repeats, strides).
      stem_features: None: those of the first row, 64 at most.
      deploy: one convolution a block, as `reparameterise` leaves it.
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
    """

    variant: str = "a0"
    num_classes: int = 1000
    in_channels: int = 3
    stem_features: int | None = None
    stages: tuple[Stage, ...] | None = None
    act: str = "relu"
    deploy: bool = False
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        choices: dict[str, Mapping[str, Any]] = {"variant": STAGES, "act": ACTIVATIONS}
        for field, known in choices.items():
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"repvgg has no {field} {value!r}. {nearest(value, known)}")
        stages = STAGES[self.variant] if self.stages is None else self.stages
        stages = tuple(Stage(*row) for row in stages)
        object.__setattr__(self, "stages", stages)
        if self.stem_features is None:
            object.__setattr__(self, "stem_features", min(64, *(row.channels for row in stages)))
        if self.num_classes < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "repvgg expects num_classes >= 0 and 0 <= dropout_rate < 1. "
                f"Got num_classes={self.num_classes}, dropout_rate={self.dropout_rate}."
            )


class RepVGG(nnx.Module):
    """Stem and blocks of `RepVGGBlock`, global mean, classifier."""

    def __init__(self, config: RepVGGConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)

        def block(c: int, channels: int, strides: int) -> RepVGGBlock:
            act = ACTIVATIONS[config.act]
            return RepVGGBlock(
                c, channels, 3, strides, act=act, reparameterised=config.deploy, rngs=same
            )

        c = config.stem_features or 1
        self.stem = block(config.in_channels, c, 2)
        blocks = []
        for stage in config.stages or ():
            for index in range(stage.repeats):
                blocks.append(block(c, stage.channels, stage.strides if index == 0 else 1))
                c = stage.channels
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
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                out[f"blocks/{index}"] = x = block(x)
        out["features"] = x = jnp.mean(x, axis=(1, 2))
        if self.classifier is None:
            return x
        out["logits"] = x = self.classifier(drop(self.dropout, x, rngs))
        return x

    def reparameterise(self) -> "RepVGG":
        """A new model, in eval mode, with one convolution a block; this one stays as it is.

        Outputs are those of this model in eval mode up to rounding; its config says `deploy`.
        """
        config = dataclasses.replace(self.config, deploy=True)
        plain = nnx.eval_shape(lambda: RepVGG(config, rngs=nnx.Rngs(0)))  # all is replaced
        plain.stem = self.stem.reparameterise()
        plain.blocks = List([block.reparameterise() for block in self.blocks])
        if self.classifier is not None:
            plain.classifier = nnx.clone(self.classifier)
        plain.eval()
        return plain


def _weight_scale(layer: nnx.Conv | nnx.Linear) -> float:
    return 0.01 if isinstance(layer, nnx.Linear) else he_normal_fan_out(layer)


FAMILY = Family(
    "repvgg",
    RepVGGConfig,
    RepVGG,
    names={f"repvgg_{variant}": {"variant": variant} for variant in STAGES},
    torch=TORCH,
)
