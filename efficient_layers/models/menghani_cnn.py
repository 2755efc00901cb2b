# SPDX-License-Identifier: Apache-2.0
"""The plain CNN of the survey's practitioner guide (CIFAR-10).

Reference: Menghani, *Efficient Deep Learning* (arXiv 2106.08962), section 4; the layers are those
of the author's notebook (github.com/reddragon/efficient-dl-survey-paper, demo.ipynb), where it is
trained with Adam, batch 128, dropout 0.15 and an l2 penalty of 1e-6 on all kernels.

As there, and unlike most: ReLU comes before the batch normalisation, convolutions keep their bias,
and the first two convolutions do not follow `width`. Channel counts use Python's `round`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers import BatchNorm, Conv, List
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.initialise import draw_weights, glorot_uniform, placeholder
from efficient_layers.models.torch_names.menghani_cnn import TORCH

STEM_FEATURES = 32
STAGE_FEATURES = (64, 128)
HIDDEN_FEATURES = 512


@dataclasses.dataclass(frozen=True)
class MenghaniCNNConfig:
    """What makes one member of the family.

    Attributes:
      num_classes: 0 leaves the classifier out; the model then returns the hidden features.
      image_size: height and width; the first dense layer reads (image_size // 8)^2 positions.
    """

    width: float = 1.0
    num_classes: int = 10
    in_channels: int = 3
    image_size: int = 32
    dropout_rate: float = 0.15

    def __post_init__(self) -> None:
        in_range = self.width > 0 and self.num_classes >= 0 and self.image_size >= 8
        if not in_range or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "menghani_cnn expects width > 0, num_classes >= 0, image_size >= 8 and "
                f"0 <= dropout_rate < 1. Got {self}."
            )

    def scaled(self, features: int) -> int:
        """The channel count at this width, at least one."""
        return max(1, round(features * self.width))


class ConvActBN(nnx.Module):
    """BatchNorm(relu(conv3x3(x))), with Keras' momentum 0.99 and epsilon 1e-3."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs) -> None:
        self.conv = Conv(in_features, out_features, (3, 3), rngs=rngs)
        self.bn = BatchNorm(
            out_features, momentum=0.99, epsilon=1e-3, unbiased_running_var=True, rngs=rngs
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        return self.bn(jax.nn.relu(self.conv(x)))


class MenghaniCNN(nnx.Module):
    """Three pairs of 3x3 convolutions with 2x2 max pooling between, then two dense layers."""

    def __init__(self, config: MenghaniCNNConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        widths = [STEM_FEATURES, *map(config.scaled, STAGE_FEATURES)]
        hidden = config.scaled(HIDDEN_FEATURES)
        convs, c = [], config.in_channels
        for features in widths:
            convs += [ConvActBN(c, features, rngs=same), ConvActBN(features, features, rngs=same)]
            c = features
        self.convs = List(convs)
        self.dense = nnx.Linear((config.image_size // 8) ** 2 * c, hidden, rngs=same)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(hidden, config.num_classes, rngs=same)
        draw_weights(self, glorot_uniform, draw=_symmetric_uniform, rngs=rngs)
        self.image_size = config.image_size

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, 512 width) where num_classes is 0.

        Args:
          rngs: keys of the two dropouts; needed in train mode where `dropout_rate` > 0.
          out: filled with "convs/0", ..., "convs/5", "features" and "logits".
        """
        if x.shape[1:3] != (self.image_size, self.image_size):
            raise ValueError(
                f"menghani_cnn was made for images of {self.image_size}x{self.image_size}. "
                f"Got shape {x.shape}. Pass image_size=... to create."
            )
        out = {} if out is None else out
        for index, conv in enumerate(self.convs):
            out[f"convs/{index}"] = x = conv(x)
            x = max_pool_2x2(x) if index % 2 else x
        x = x.reshape(x.shape[0], -1)  # b h w c -> b (h w c), as Keras flattens
        x = jax.nn.relu(self.dense(drop(self.dropout, x, rngs)))
        out["features"] = x
        if self.classifier is None:
            return x
        out["logits"] = x = self.classifier(drop(self.dropout, x, rngs))
        return x


def max_pool_2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """The maximum of each 2x2 window; an odd last row or column is dropped."""
    b, h, w, c = x.shape
    windows = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    return jnp.max(windows, axis=(2, 4))


def _symmetric_uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


FAMILY = Family("menghani_cnn", MenghaniCNNConfig, MenghaniCNN, torch=TORCH)
