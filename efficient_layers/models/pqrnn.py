# SPDX-License-Identifier: Apache-2.0
"""pQRNN: hashed projections in place of an embedding table, then bidirectional quasi-recurrence.

A token is any 32-bit integer, such as `zlib.crc32` of a word: there is no vocabulary.

References: Kaliamoorthi, Siddhant, Li and Johnson, *Distilling Large Language Models into Tiny and
Effective Students using pQRNN* (arXiv 2101.08890), section 3; the layers' order and the attention
pooling are those of the authors' code (github.com/tensorflow/models, research/seq_flow_lite,
`models/pqrnn.py`); Bradbury et al., *Quasi-Recurrent Neural Networks* (arXiv 1611.01576), sec. 2;
zoneout: Krueger et al. (arXiv 1606.01305). The default has 1.84 million weights.

Differs from the authors' code: tokens are hashed, not their text; batch normalisation follows the
bottleneck alone; weights are in float32 (quantise with `el.compress`).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from efficient_layers.layers import BatchNorm, CausalConv, List, RandomProjectionEmbedding
from efficient_layers.layers.dropout import dropout_key
from efficient_layers.models.family import Family
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.ops.linear_recurrence import linear_recurrence


@dataclasses.dataclass(frozen=True)
class PQRNNConfig:
    """What makes one pQRNN.

    Attributes:
      code_size: numbers -1, 0, 1 that a token's hash becomes.
      features: width of the bottleneck after them.
      state_features: of each of the two directions of a block.
      kernel_size: tokens that a gate sees.
      zoneout_rate: of the first block; its l-th power is that of block l.
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
    """

    code_size: int = 1024
    features: int = 256
    state_features: int = 128
    depth: int = 4
    kernel_size: int = 2
    zoneout_rate: float = 0.5
    num_classes: int = 2

    def __post_init__(self) -> None:
        sizes = (self.code_size, self.features, self.state_features, self.depth, self.kernel_size)
        if min(sizes) < 1 or self.num_classes < 0 or not 0 <= self.zoneout_rate < 1:
            raise ValueError(
                "pqrnn expects sizes of at least 1, num_classes >= 0 and 0 <= zoneout_rate < 1. "
                f"Got {self}."
            )


class QRNN(nnx.Module):
    """c_t = f_t c_{t-1} + (1 - f_t) tanh(z_t), h_t = sigmoid(o_t) c_t: one direction.

    z, o and the argument of f = sigmoid(.) are convolutions of the last `kernel_size` inputs.
    Zoneout keeps c_t = c_{t-1} at random while training, an element at a time.
    """

    def __init__(
        self, in_features: int, features: int, kernel_size: int, zoneout: float, *, rngs: nnx.Rngs
    ) -> None:
        self.gates = CausalConv(in_features, 3 * features, kernel_size, rngs=rngs)
        self.features, self.zoneout = features, zoneout
        self.deterministic = False

    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b n s"]:
        """All positions, from c = 0; padding (mask False) changes no state and gives 0."""
        z, f, o = jnp.split(self.gates(x), 3, axis=-1)
        f = jax.nn.sigmoid(f)
        added = (1 - f) * jnp.tanh(z)
        skipped = None if mask is None else ~mask[..., None]
        if self.zoneout and not self.deterministic:
            key = dropout_key(rngs, f"A model with zoneout_rate={self.zoneout}")
            still = jax.random.bernoulli(key, self.zoneout, f.shape)
            skipped = still if skipped is None else skipped | still
        if skipped is not None:
            f, added = jnp.where(skipped, 1, f), jnp.where(skipped, 0, added)
        start = jnp.zeros((x.shape[0], self.features), f.dtype)
        h: Any = jax.nn.sigmoid(o) * linear_recurrence(f, added, start)
        return h if mask is None else jnp.where(mask[..., None], h, 0)


class Bidirectional(nnx.Module):
    """The features of two `QRNN`s side by side, one of them from the end."""

    def __init__(
        self, in_features: int, features: int, kernel_size: int, zoneout: float, *, rngs: nnx.Rngs
    ) -> None:
        self.forward = QRNN(in_features, features, kernel_size, zoneout, rngs=rngs)
        self.backward = QRNN(in_features, features, kernel_size, zoneout, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b n s"]:
        """(b, n, in_features) -> (b, n, 2 features)."""
        reverse = None if mask is None else mask[:, ::-1]
        back = self.backward(x[:, ::-1], reverse, rngs=rngs)[:, ::-1]
        return jnp.concatenate([self.forward(x, mask, rngs=rngs), back], axis=-1)


class PQRNN(nnx.Module):
    """Projection, bottleneck, bidirectional QRNNs, pooling by attention, classifier."""

    def __init__(self, config: PQRNNConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same, c, d = placeholder(rngs), config.features, 2 * config.state_features
        self.projection = RandomProjectionEmbedding(
            c, code_size=config.code_size, use_bias=False, rngs=same
        )
        self.bn = BatchNorm(c, momentum=0.99, epsilon=1e-3, rngs=same)
        sizes = (config.state_features, config.kernel_size)
        self.blocks = List(
            [
                Bidirectional(d if i else c, *sizes, config.zoneout_rate ** (i + 1), rngs=same)
                for i in range(config.depth)
            ]
        )
        self.pool = nnx.Linear(d, 1, use_bias=False, rngs=same)  # a bias would change nothing
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(d, config.num_classes, rngs=same)
        draw_weights(self, _fan_in, rngs=rngs)

    def __call__(
        self,
        x: Int[Array, "b n"],
        *,
        mask: Bool[Array, "b n"] | None = None,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, 2 state) where num_classes is 0.

        Args:
          mask: True: a token, False: padding.
          rngs: key of the zoneout; needed in train mode where `zoneout_rate` > 0.
          out: filled with "projection", "blocks/0", ..., "attention", "features" and "logits".
        """
        if x.ndim != 2 or (mask is not None and mask.shape != x.shape):
            raise ValueError(
                "pqrnn expects tokens of shape (batch, positions) and a mask of that shape. "
                f"Got {x.shape} and {None if mask is None else mask.shape}."
            )
        out = {} if out is None else out
        seen = None if mask is None else mask[..., None]
        out["projection"] = y = jax.nn.relu(self.bn(self.projection(x), mask=seen))
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                y = y if seen is None else jnp.where(seen, y, 0)
                out[f"blocks/{index}"] = y = block(y, mask, rngs=rngs)
        scores = self.pool(y)  # b n 1
        scores = scores if seen is None else jnp.where(seen, scores, jnp.finfo(y.dtype).min)
        out["attention"] = attention = jax.nn.softmax(scores, axis=1)
        out["features"] = y = (attention * y).sum(axis=1)
        if self.classifier is None:
            return y
        out["logits"] = y = self.classifier(y)
        return y


def _fan_in(layer: nnx.Conv | nnx.Linear) -> float:
    """Keeps the variance (LeCun)."""
    return 1 / math.sqrt(math.prod(layer.kernel[...].shape[:-1]))


FAMILY = Family("pqrnn", PQRNNConfig, PQRNN)
