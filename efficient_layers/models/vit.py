# SPDX-License-Identifier: Apache-2.0
"""ViT and DeiT: a transformer encoder over the patches of an image.

Reference: Dosovitskiy et al., *An Image is Worth 16x16 Words: Transformers for Image Recognition at
Scale*, ICLR 2021 (arXiv 2010.11929), section 3.1, table 1; the tiny and small widths, the
distillation token and its classifier are Touvron et al., *Training data-efficient image
transformers & distillation through attention*, ICML 2021 (arXiv 2012.12877), section 4, table 1.

As in timm and torchvision, so that their weights fit: exact GELU, epsilon 1e-6, a linear classifier
on the class token. Differs from the paper's code: tokens and positions are drawn with deviation
0.02 (DeiT's), where ViT starts the class token at 0.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers import Conv, DropPath, LayerNorm, List, MultiHeadAttention
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.patches import check_images, check_patches
from efficient_layers.models.torch_names.vit import TORCH
from efficient_layers.ops.activation import gelu


class Variant(NamedTuple):
    """A row of ViT's table 1 (base, large, huge) or of DeiT's (tiny, small)."""

    features: int
    depth: int
    num_heads: int


VARIANTS = {
    "tiny": Variant(features=192, depth=12, num_heads=3),
    "small": Variant(features=384, depth=12, num_heads=6),
    "base": Variant(features=768, depth=12, num_heads=12),
    "large": Variant(features=1024, depth=24, num_heads=16),
    "huge": Variant(features=1280, depth=32, num_heads=16),
}

FROM_VARIANT: Any = None


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """What makes one ViT. A field not given takes the value of its variant.

    Attributes:
      num_classes: 0 leaves the classifiers out; the model then returns the class token.
      image_size: height and width; the table of positions has (image_size / patch_size)^2 rows,
        and one a token.
      mlp_ratio: hidden features of a block's feed-forward layers over `features`.
      distilled: a second token and a classifier of its own, for DeiT's distillation.
      drop_path_rate: of the last block; it grows linearly from 0.
      dropout_rate: before the classifiers.
    """

    variant: str = "small"
    patch_size: int = 16
    image_size: int = 224
    num_classes: int = 1000
    in_channels: int = 3
    features: int = FROM_VARIANT
    depth: int = FROM_VARIANT
    num_heads: int = FROM_VARIANT
    mlp_ratio: float = 4
    distilled: bool = False
    drop_path_rate: float = 0.0
    dropout_rate: float = 0.0
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"vit has no variant {self.variant!r}. {nearest(self.variant, VARIANTS)}"
            )
        for name, value in VARIANTS[self.variant]._asdict().items():
            if getattr(self, name) is FROM_VARIANT:
                object.__setattr__(self, name, value)
        if self.depth < 1 or self.num_classes < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "vit expects a depth of at least 1, num_classes >= 0 and 0 <= dropout_rate < 1. "
                f"Got depth={self.depth}, num_classes={self.num_classes}, "
                f"dropout_rate={self.dropout_rate}."
            )
        check_patches("vit", self.image_size, self.patch_size)

    @property
    def tokens(self) -> int:
        """The length of the sequence: patches, class token, distillation token."""
        return (self.image_size // self.patch_size) ** 2 + 1 + self.distilled


class EncoderBlock(nnx.Module):
    """y = x + drop_path(attention(norm(x))); y + drop_path(project(act(expand(norm(y))))).

    Reference: arXiv 2010.11929, equations 2 and 3.
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4,
        drop_path: float = 0.0,
        act: Callable[[jax.Array], jax.Array] = gelu,
        epsilon: float = 1e-6,
        rngs: nnx.Rngs,
    ) -> None:
        hidden = int(mlp_ratio * features)
        self.attention_norm = LayerNorm(features, epsilon=epsilon, rngs=rngs)
        self.attention = MultiHeadAttention(features, num_heads, rngs=rngs)
        self.mlp_norm = LayerNorm(features, epsilon=epsilon, rngs=rngs)
        self.expand = nnx.Linear(features, hidden, rngs=rngs)
        self.project = nnx.Linear(hidden, features, rngs=rngs)
        self.drop_path = DropPath(drop_path)
        self.act = act

    def __call__(
        self, x: Float[Array, "b n d"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b n d"]:
        """Tokens to tokens; `rngs` where drop_path > 0 in train mode."""
        x = x + self.drop_path(self.attention(self.attention_norm(x)), rngs=rngs)
        # As one (tokens, features) matrix: the weights' gradient of a product over several batch
        # axes is 3x slower on a CPU.
        rows = self.mlp_norm(x).reshape(-1, x.shape[-1])
        y = self.project(self.act(self.expand(rows))).reshape(x.shape)
        return x + self.drop_path(y, rngs=rngs)


class ViT(nnx.Module):
    """Patches, tokens and positions, encoder blocks, a norm, a classifier on the class token."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        d, p = config.features, config.patch_size
        # Their deviations are DeiT's. Cheaper to compile as one draw than as three.
        drawn = 0.02 * jax.random.normal(
            rngs.params(), (1, config.tokens + 1 + config.distilled, d)
        )
        self.class_token = nnx.Param(drawn[:, :1])
        self.distillation_token = nnx.data(None)
        if config.distilled:
            self.distillation_token = nnx.Param(drawn[:, 1:2])
        self.positions = nnx.Param(drawn[:, -config.tokens :])
        self.stem = Conv(config.in_channels, d, (p, p), strides=p, padding="VALID", rngs=same)
        self.blocks = List(
            EncoderBlock(
                d,
                config.num_heads,
                mlp_ratio=config.mlp_ratio,
                drop_path=config.drop_path_rate * index / max(1, config.depth - 1),
                epsilon=config.epsilon,
                rngs=same,
            )
            for index in range(config.depth)
        )
        self.norm = LayerNorm(d, epsilon=config.epsilon, rngs=same)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        self.distillation_classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(d, config.num_classes, rngs=same)
            if config.distilled:
                self.distillation_classifier = nnx.Linear(d, config.num_classes, rngs=same)
        draw_weights(self, _weight_scale, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, d) where num_classes is 0.

        With a distillation token, the mean of both classifiers' logits (of both tokens): DeiT's
        prediction. Its two losses are of "class_logits" and "distillation_logits" in `out`.

        Args:
          rngs: keys of drop path and dropout; needed in train mode where a rate is above 0.
          out: filled with "stem", "blocks/0", ..., "tokens", "features" and "logits".
        """
        check_images(self, x, self.config.image_size, self.config.in_channels)
        out = {} if out is None else out
        out["stem"] = x = self._embed(x)
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                out[f"blocks/{index}"] = x = block(x, rngs=rngs)
        out["tokens"] = x = self.norm(x)
        heads = x[:, : 1 + self.config.distilled]  # b 1 d, or b 2 d
        out["features"] = jnp.mean(heads, axis=1)
        if self.classifier is None:
            return out["features"]
        heads = drop(self.dropout, heads, rngs)
        logits = self.classifier(heads[:, 0])
        if self.distillation_classifier is not None:
            out["class_logits"] = logits
            out["distillation_logits"] = self.distillation_classifier(heads[:, 1])
            logits = (logits + out["distillation_logits"]) / 2
        out["logits"] = logits
        return logits

    def _embed(self, x: jax.Array) -> jax.Array:
        """(b, h, w, c) -> (b, n, d): tokens before patches, positions added to all."""
        y = self.stem(x)
        y = y.reshape(y.shape[0], -1, y.shape[-1])
        tokens = [
            jnp.broadcast_to(token[...].astype(y.dtype), (y.shape[0], 1, y.shape[-1]))
            for token in (self.class_token, self.distillation_token)
            if token is not None
        ]
        y = jnp.concatenate([*tokens, y], axis=1)
        return y + self.positions[...].astype(y.dtype)


def _weight_scale(layer: nnx.Conv | nnx.Linear) -> float:
    if isinstance(layer, nnx.Linear):
        return 0.02
    return 1 / math.sqrt(math.prod(layer.kernel[...].shape[:-1]))  # LeCun


def _timm_names() -> dict[str, dict[str, Any]]:
    patches = {"tiny": (16,), "small": (8, 16, 32), "base": (8, 16, 32), "large": (16, 32)}
    names: dict[str, dict[str, Any]] = {}
    for variant, sizes in patches.items():
        for p in sizes:
            for image in (224, 384) if p > 8 else (224,):
                fields = {"variant": variant, "patch_size": p, "image_size": image}
                names[f"vit_{variant}_patch{p}_{image}"] = fields
    # These two come without a classifier: their weights were trained on ImageNet-21k.
    names["vit_small_patch8_224"]["num_classes"] = names["vit_large_patch32_224"]["num_classes"] = 0
    for variant, image in (("tiny", 224), ("small", 224), ("base", 224), ("base", 384)):
        fields = {"variant": variant, "image_size": image}
        names[f"deit_{variant}_patch16_{image}"] = fields
        names[f"deit_{variant}_distilled_patch16_{image}"] = fields | {"distilled": True}
    return names


FAMILY = Family(
    "vit",
    ViTConfig,
    ViT,
    names={
        **_timm_names(),
        "vit_b_16": {"variant": "base", "patch_size": 16},
        "vit_b_32": {"variant": "base", "patch_size": 32},
        "vit_l_16": {"variant": "large", "patch_size": 16},
        "vit_l_32": {"variant": "large", "patch_size": 32},
        "vit_h_14": {"variant": "huge", "patch_size": 14},
    },
    torch=TORCH,
)
