# SPDX-License-Identifier: Apache-2.0
"""MLP-Mixer: two-layer perceptrons over the patches of an image, then over the channels.

Reference: Tolstikhin et al., *MLP-Mixer: An all-MLP Architecture for Vision*, NeurIPS 2021 (arXiv
2105.01601), section 2, figure 1, table 1.

As in timm, so that its weights fit: exact GELU, epsilon 1e-6. Differs from the paper's code: the
classifier is drawn as the other layers are, where theirs starts at 0.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers import Conv, DropPath, LayerNorm, List
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.patches import check_images, check_patches
from efficient_layers.models.torch_names.mlp_mixer import TORCH
from efficient_layers.ops.activation import gelu


class Variant(NamedTuple):
    """A column of the paper's table 1; both perceptrons' widths follow `features`."""

    features: int
    depth: int


VARIANTS = {
    "small": Variant(features=512, depth=8),
    "base": Variant(features=768, depth=12),
    "large": Variant(features=1024, depth=24),
}

FROM_VARIANT: Any = None


@dataclasses.dataclass(frozen=True)
class MLPMixerConfig:
    """What makes one MLP-Mixer. A field not given takes the value of its variant.

    Attributes:
      num_classes: 0 leaves the classifier out; the model then returns the mean of the patches.
      image_size: height and width; layers over the patches have (image_size / patch_size)^2 inputs.
      token_ratio: hidden units of the perceptron over patches, over `features`.
      channel_ratio: those of the one over channels.
      drop_path_rate: of the last block; it grows linearly from 0.
      dropout_rate: before the classifier.
    """

    variant: str = "small"
    patch_size: int = 16
    image_size: int = 224
    num_classes: int = 1000
    in_channels: int = 3
    features: int = FROM_VARIANT
    depth: int = FROM_VARIANT
    token_ratio: float = 0.5
    channel_ratio: float = 4
    drop_path_rate: float = 0.0
    dropout_rate: float = 0.0
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"mlp_mixer has no variant {self.variant!r}. {nearest(self.variant, VARIANTS)}"
            )
        for name, value in VARIANTS[self.variant]._asdict().items():
            if getattr(self, name) is FROM_VARIANT:
                object.__setattr__(self, name, value)
        in_range = min(self.features, self.depth, *self.hidden) >= 1 and self.num_classes >= 0
        if not in_range or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "mlp_mixer expects features, depth and hidden units of at least 1, "
                f"num_classes >= 0 and 0 <= dropout_rate < 1. Got features={self.features}, "
                f"depth={self.depth}, hidden units {self.hidden}, num_classes={self.num_classes}, "
                f"dropout_rate={self.dropout_rate}."
            )
        check_patches("mlp_mixer", self.image_size, self.patch_size)

    @property
    def tokens(self) -> int:
        """How many patches an image has."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def hidden(self) -> tuple[int, int]:
        """Hidden units of the perceptron over patches, and of the one over channels."""
        return int(self.token_ratio * self.features), int(self.channel_ratio * self.features)


class MixerBlock(nnx.Module):
    """y = x + mlp(norm(x)^T)^T; y + mlp(norm(y)): over patches, then over channels.

    Reference: arXiv 2105.01601, equation 1.
    """

    def __init__(self, config: MLPMixerConfig, *, drop_path: float, rngs: nnx.Rngs) -> None:
        n, d, epsilon = config.tokens, config.features, config.epsilon
        patches, channels = config.hidden
        self.tokens_norm = LayerNorm(d, epsilon=epsilon, rngs=rngs)
        self.tokens_expand = nnx.Linear(n, patches, rngs=rngs)
        self.tokens_project = nnx.Linear(patches, n, rngs=rngs)
        self.channels_norm = LayerNorm(d, epsilon=epsilon, rngs=rngs)
        self.channels_expand = nnx.Linear(d, channels, rngs=rngs)
        self.channels_project = nnx.Linear(channels, d, rngs=rngs)
        self.drop_path = DropPath(drop_path)

    def __call__(
        self, x: Float[Array, "b n d"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b n d"]:
        """Patches to patches; `rngs` where drop_path > 0 in train mode."""
        b, n, d = x.shape
        # Both as matrices of rows: the weights' gradient of a product over several batch axes is
        # 3x slower on a CPU.
        rows = self.tokens_norm(x).swapaxes(1, 2).reshape(b * d, n)
        rows = self.tokens_project(gelu(self.tokens_expand(rows)))
        x = x + self.drop_path(rows.reshape(b, d, n).swapaxes(1, 2), rngs=rngs)
        rows = self.channels_norm(x).reshape(b * n, d)
        rows = self.channels_project(gelu(self.channels_expand(rows)))
        return x + self.drop_path(rows.reshape(b, n, d), rngs=rngs)


class MLPMixer(nnx.Module):
    """Patches, mixer blocks, a norm, the mean over patches, a classifier."""

    def __init__(self, config: MLPMixerConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        d, p, last = config.features, config.patch_size, max(1, config.depth - 1)
        self.stem = Conv(config.in_channels, d, (p, p), strides=p, padding="VALID", rngs=same)
        self.blocks = List(
            MixerBlock(config, drop_path=config.drop_path_rate * index / last, rngs=same)
            for index in range(config.depth)
        )
        self.norm = LayerNorm(d, epsilon=config.epsilon, rngs=same)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(d, config.num_classes, rngs=same)
        draw_weights(self, _lecun_normal, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, d) where num_classes is 0.

        Args:
          rngs: keys of drop path and dropout; needed in train mode where a rate is above 0.
          out: filled with "stem", "blocks/0", ..., "tokens", "features" and "logits".
        """
        check_images(self, x, self.config.image_size, self.config.in_channels)
        out = {} if out is None else out
        x = self.stem(x)
        out["stem"] = x = x.reshape(x.shape[0], -1, x.shape[-1])  # b n d
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                out[f"blocks/{index}"] = x = block(x, rngs=rngs)
        out["tokens"] = x = self.norm(x)
        out["features"] = x = jnp.mean(x, axis=1)
        if self.classifier is None:
            return x
        out["logits"] = x = self.classifier(drop(self.dropout, x, rngs))
        return x


def _lecun_normal(layer: nnx.Conv | nnx.Linear) -> float:
    return 1 / math.sqrt(math.prod(layer.kernel[...].shape[:-1]))


FAMILY = Family(
    "mlp_mixer",
    MLPMixerConfig,
    MLPMixer,
    names={
        f"mixer_{variant[0]}{patch}_224": {"variant": variant, "patch_size": patch}
        for variant in VARIANTS
        for patch in (32, 16)
    },
    torch=TORCH,
)
