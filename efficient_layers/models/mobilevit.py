# SPDX-License-Identifier: Apache-2.0
"""MobileViT: inverted residuals, and transformers over the pixels at one place of all patches.

Reference: Mehta and Rastegari, *MobileViT: Light-weight, General-purpose, and Mobile-friendly
Vision Transformer*, ICLR 2022 (arXiv 2110.02178), section 3, figure 1, table 4.

As in timm, so that its weights fit: SiLU throughout, four heads, MLPs twice as wide; where the
patches do not divide a feature map it is enlarged bilinearly, and the result shrunk.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers import Conv, ConvBNAct, InvertedResidual, LayerNorm, List
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, fan_out_of_a_group, placeholder
from efficient_layers.models.mobile_net import MobileNet
from efficient_layers.models.torch_names.mobilevit import TORCH
from efficient_layers.models.vit import EncoderBlock


class Stage(NamedTuple):
    """A row of the paper's table 4: `repeats` inverted residuals, the first one with `strides`.

    Then, where `depth` is above 0, a MobileViT block: `depth` encoder blocks of `features`.
    """

    expand_ratio: float
    channels: int
    repeats: int
    strides: int
    features: int = 0
    depth: int = 0


@dataclasses.dataclass(frozen=True)
class Variant:
    """One column of the paper's table 4."""

    stages: tuple[Stage, ...]
    head_features: int


VARIANTS = {
    "xxs": Variant(
        stages=(
            Stage(2, 16, 1, 1),
            Stage(2, 24, 3, 2),
            Stage(2, 48, 1, 2, features=64, depth=2),
            Stage(2, 64, 1, 2, features=80, depth=4),
            Stage(2, 80, 1, 2, features=96, depth=3),
        ),
        head_features=320,
    ),
    "xs": Variant(
        stages=(
            Stage(4, 32, 1, 1),
            Stage(4, 48, 3, 2),
            Stage(4, 64, 1, 2, features=96, depth=2),
            Stage(4, 80, 1, 2, features=120, depth=4),
            Stage(4, 96, 1, 2, features=144, depth=3),
        ),
        head_features=384,
    ),
    "s": Variant(
        stages=(
            Stage(4, 32, 1, 1),
            Stage(4, 64, 3, 2),
            Stage(4, 96, 1, 2, features=144, depth=2),
            Stage(4, 128, 1, 2, features=192, depth=4),
            Stage(4, 160, 1, 2, features=240, depth=3),
        ),
        head_features=640,
    ),
}

FROM_VARIANT: Any = None


@dataclasses.dataclass(frozen=True)
class MobileViTConfig:
    """What makes one MobileViT. A field not given takes the value of its variant.

    Attributes:
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
      stages: rows (expand_ratio, channels, repeats, strides, features, depth).
      patch_size: pixels at the same place of patches of this height and width see one another.
      mlp_ratio: hidden features of an encoder block's feed-forward layers over its `features`.
      drop_path_rate: of every encoder block.
      dropout_rate: before the classifier.
      epsilon: of layer norms and batch norms.
    """

    variant: str = "s"
    num_classes: int = 1000
    in_channels: int = 3
    stem_features: int = 16
    stages: tuple[Stage, ...] = FROM_VARIANT
    head_features: int = FROM_VARIANT
    patch_size: int = 2
    num_heads: int = 4
    mlp_ratio: float = 2
    drop_path_rate: float = 0.0
    dropout_rate: float = 0.0
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"mobilevit has no variant {self.variant!r}. {nearest(self.variant, VARIANTS)}"
            )
        for name, value in vars(VARIANTS[self.variant]).items():
            if getattr(self, name) is FROM_VARIANT:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "stages", tuple(Stage(*row) for row in self.stages))
        in_range = min(self.patch_size, len(self.stages)) >= 1 and self.num_classes >= 0
        if not in_range or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "mobilevit expects patch_size >= 1, at least one stage, num_classes >= 0 and "
                f"0 <= dropout_rate < 1. Got patch_size={self.patch_size}, {len(self.stages)} "
                f"stages, num_classes={self.num_classes}, dropout_rate={self.dropout_rate}."
            )


class MobileViTBlock(nnx.Module):
    """y = fuse([x, leave(norm(transformer(enter(local(x)))))]), the transformer over patches.

    `local` and `fuse` are 3x3, `enter` and `leave` 1x1 convolutions.

    Reference: arXiv 2110.02178, section 3.1, figure 1b.
    """

    def __init__(self, c: int, stage: Stage, config: MobileViTConfig, *, rngs: nnx.Rngs) -> None:
        d = stage.features
        norms: dict[str, Any] = {"act": jax.nn.silu, "epsilon": config.epsilon, "rngs": rngs}
        self.patch_size = config.patch_size
        self.local = ConvBNAct(c, c, 3, **norms)
        self.enter = Conv(c, d, (1, 1), use_bias=False, rngs=rngs)
        self.transformer = List(
            EncoderBlock(
                d,
                config.num_heads,
                mlp_ratio=config.mlp_ratio,
                drop_path=config.drop_path_rate,
                **norms,
            )
            for _ in range(stage.depth)
        )
        self.norm = LayerNorm(d, epsilon=config.epsilon, rngs=rngs)
        self.leave = ConvBNAct(d, c, 1, **norms)
        self.fuse = ConvBNAct(2 * c, c, 3, **norms)

    def __call__(
        self, x: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w c"]:
        """Features to features; `rngs` where the blocks drop paths in train mode."""
        y = self.enter(self.local(x))
        b, h, w, d = y.shape
        p = self.patch_size
        rows, columns = -(-h // p), -(-w // p)
        y = _resized(y, rows * p, columns * p)
        # b (rows p) (columns p) d -> (b p p) (rows columns) d
        y = y.reshape(b, rows, p, columns, p, d).transpose(0, 2, 4, 1, 3, 5)
        y = y.reshape(b * p * p, rows * columns, d)
        for index, block in enumerate(self.transformer):
            with jax.named_scope(f"transformer/{index}"):
                y = block(y, rngs=rngs)
        y = self.norm(y)
        y = y.reshape(b, p, p, rows, columns, d).transpose(0, 3, 1, 4, 2, 5)
        y = _resized(y.reshape(b, rows * p, columns * p, d), h, w)
        return self.fuse(jnp.concatenate([x, self.leave(y)], axis=-1))


class MobileViT(MobileNet):
    """Stem, inverted residuals and MobileViT blocks, 1x1 head, global mean, dropout, classifier."""

    def __init__(self, config: MobileViTConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        norms: dict[str, Any] = {"act": jax.nn.silu, "epsilon": config.epsilon, "rngs": same}
        c = config.stem_features
        self.stem = ConvBNAct(config.in_channels, c, 3, 2, **norms)
        blocks: list[nnx.Module] = []
        for stage in config.stages:
            for index in range(stage.repeats):
                blocks.append(
                    InvertedResidual(
                        c,
                        stage.channels,
                        strides=stage.strides if index == 0 else 1,
                        expand_ratio=stage.expand_ratio,
                        **norms,
                    )
                )
                c = stage.channels
            if stage.depth:
                blocks.append(MobileViTBlock(c, stage, config, rngs=same))
        self.blocks = List(blocks)
        self.head = ConvBNAct(c, config.head_features, 1, **norms)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(config.head_features, config.num_classes, rngs=same)
        draw_weights(self, _weight_scale, rngs=rngs)

    def run_block(self, block: Any, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        return block(x, rngs=rngs) if isinstance(block, MobileViTBlock) else block(x)


def _resized(x: jax.Array, h: int, w: int) -> jax.Array:
    """Bilinear, as torch's `interpolate(align_corners=False)`."""
    if x.shape[1:3] == (h, w):
        return x
    return jax.image.resize(x, (x.shape[0], h, w, x.shape[3]), "bilinear", antialias=False)


def _weight_scale(layer: nnx.Conv | nnx.Linear) -> float:
    return 0.01 if isinstance(layer, nnx.Linear) else fan_out_of_a_group(layer)


FAMILY = Family(
    "mobilevit",
    MobileViTConfig,
    MobileViT,
    names={f"mobilevit_{variant}": {"variant": variant} for variant in VARIANTS},
    torch=TORCH,
)
