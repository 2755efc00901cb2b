# SPDX-License-Identifier: Apache-2.0
"""The four small models of MNIST-1D: linear, MLP, CNN and GRU.

Reference: Greydanus and Kobak, *Scaling Down Deep Learning with MNIST-1D* (arXiv 2011.14439); sizes
of github.com/greydanus/mnist1d, `notebooks/models.py`: 410, 15,210, 5,210 and 5,134 parameters for
40 positions and 10 classes. Weights start as torch's (uniform within 1 / sqrt(fan_in)); differs:
biases of linear and convolution layers start at 0.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers import GRU, Conv, List
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.torch_names.mnist1d import TORCH

# Width of the hidden layers where the config gives none.
VARIANTS = {"linear": 0, "mlp": 100, "cnn": 25, "gru": 6}
KERNEL_SIZES = (5, 3, 3)  # of the CNN, each with stride 2 and one zero on either side


@dataclasses.dataclass(frozen=True)
class MNIST1DConfig:
    """What makes one of the models.

    Attributes:
      variant: "linear", "mlp", "cnn" or "gru".
      features: units of the MLP, channels of the CNN, units of the GRU in each direction; the
        published number where not given.
      length: positions of a series.
      num_classes: 0 leaves the classifier out; the model then returns features.
    """

    variant: str = "cnn"
    features: int | None = None
    length: int = 40
    num_classes: int = 10

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"mnist1d has no variant {self.variant!r}. {nearest(self.variant, VARIANTS)}"
            )
        if self.features is None:
            object.__setattr__(self, "features", VARIANTS[self.variant])
        if self.length < 8 or self.num_classes < 0 or (self.features or 1) < 1:
            raise ValueError(
                "mnist1d expects length >= 8, num_classes >= 0 and features >= 1. "
                f"Got length={self.length}, num_classes={self.num_classes}, "
                f"features={self.features}."
            )

    @property
    def flat_features(self) -> int:
        """What the classifier reads."""
        width = self.features or 0
        if self.variant == "cnn":
            length = self.length
            for size in KERNEL_SIZES:
                length = (length + 2 - size) // 2 + 1
            return length * width
        sizes = {"linear": self.length, "mlp": width, "gru": self.length * 2 * width}
        return sizes[self.variant]


class MNIST1D(nnx.Module):
    """Hidden layers of one kind, then a linear classifier.

    linear: none. mlp: h = relu(x W), then h + relu(h V). cnn: three convolutions of stride 2, each
    with relu. gru: one GRU from either end, all of their positions side by side.
    """

    def __init__(self, config: MNIST1DConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same = placeholder(rngs)
        self.layers = List(_hidden(config, same, rngs))
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(config.flat_features, config.num_classes, rngs=same)
        draw_weights(self, _bound, draw=_symmetric_uniform, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n 1"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features where num_classes is 0.

        Args:
          out: filled with "series", "layers/0", ..., "features" and "logits".
        """
        if x.ndim != 3 or x.shape[1:] != (self.config.length, 1):
            raise ValueError(
                f"mnist1d was made for series of shape (batch, {self.config.length}, 1). Got "
                f"{x.shape}. Pass length=... to create."
            )
        out = {} if out is None else out
        out["series"] = x
        out["features"] = x = self._features(x, out)
        if self.classifier is None:
            return x
        out["logits"] = x = self.classifier(x)
        return x

    def _features(self, x: jax.Array, out: dict[str, jax.Array]) -> jax.Array:
        if self.config.variant == "gru":
            there, back = self.layers
            out["layers/0"], out["layers/1"] = there(x), back(x[:, ::-1])[:, ::-1]
            x = jnp.concatenate([out["layers/0"], out["layers/1"]], axis=-1)
        elif self.config.variant == "mlp":
            x = x[..., 0]
        for index, layer in enumerate(self.layers if self.config.variant != "gru" else []):
            y = jax.nn.relu(layer(x))
            x = x + y if self.config.variant == "mlp" and index else y
            out[f"layers/{index}"] = x
        return x.reshape(x.shape[0], -1)  # b n c -> b (n c)


def _hidden(config: MNIST1DConfig, same: nnx.Rngs, rngs: nnx.Rngs) -> list[nnx.Module]:
    d = config.features or 0
    if config.variant == "mlp":
        return [nnx.Linear(config.length, d, rngs=same), nnx.Linear(d, d, rngs=same)]
    if config.variant == "cnn":
        return [
            Conv(1 if index == 0 else d, d, (size,), strides=2, padding=[(1, 1)], rngs=same)
            for index, size in enumerate(KERNEL_SIZES)
        ]
    return [GRU(1, d, rngs=rngs) for _ in range(2)] if config.variant == "gru" else []


def _bound(layer: nnx.Conv | nnx.Linear) -> float:
    return 1 / math.sqrt(math.prod(layer.kernel[...].shape[:-1]))


def _symmetric_uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


FAMILY = Family(
    "mnist1d",
    MNIST1DConfig,
    MNIST1D,
    names={f"mnist1d_{variant}": {"variant": variant} for variant in VARIANTS},
    torch=TORCH,
)
