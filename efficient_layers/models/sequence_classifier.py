# SPDX-License-Identifier: Apache-2.0
"""A small encoder of token sequences with a classifier, for ListOps; its mixer is a choice.

    create("sequence_classifier", attention="NystromAttention")
    create("sequence_classifier", attention="Linformer", attention_options={"rank": 64})

Sizes as in Xiong et al., *Nyströmformer* (arXiv 2102.03902), for the Long Range Arena (Tay et al.,
arXiv 2011.04006): 2 blocks of 64 features and 2 heads, an mlp of 128, mean over positions. The
arena's own code has 4 blocks, 512 features, 8 heads, 1,024, and a token in front (`pooling="cls"`).

Padding (`mask`) is left out of the mean, set to zero before each block, and not looked at by mixers
that know masks (softmax attention); the others see zeros there.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from efficient_layers.layers import Embedding, LayerNorm, List
from efficient_layers.layers.dropout import drop
from efficient_layers.models.causal_lm import Block, Mlp
from efficient_layers.models.family import Family
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.mixer import make_mixer, options

STD = 0.02
POOLINGS = ("mean", "cls")


@dataclasses.dataclass(frozen=True)
class SequenceClassifierConfig:
    """What makes one classifier of sequences.

    Attributes:
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
      pooling: "mean" over tokens, or "cls": the output of a learned token in front of them.
      attention: the layer of `el.layers` that mixes positions; see `models/mixer.py`.
      attention_options: arguments of its constructor, a dict or pairs.
    """

    vocabulary: int = 16
    max_length: int = 2000
    num_classes: int = 10
    features: int = 64
    depth: int = 2
    num_heads: int = 2
    mlp_features: int = 128
    dropout_rate: float = 0.1
    pooling: str = "mean"
    attention: str = "MultiHeadAttention"
    attention_options: tuple[Any, ...] | dict[str, Any] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attention_options", options(self.attention_options))
        sizes = (self.vocabulary, self.max_length, self.features, self.depth, self.num_heads)
        if min(*sizes, self.mlp_features) < 1 or self.num_classes < 0:
            raise ValueError(
                f"sequence_classifier expects sizes of at least 1 and num_classes >= 0. Got {self}."
            )
        if self.pooling not in POOLINGS or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                f"sequence_classifier expects pooling of {POOLINGS} and 0 <= dropout_rate < 1. "
                f"Got {self.pooling!r} and {self.dropout_rate}."
            )


class SequenceClassifier(nnx.Module):
    """Token and learned position embeddings, pre-norm blocks, a last norm, pooling, classifier."""

    def __init__(self, config: SequenceClassifierConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same, d = placeholder(rngs), config.features
        draw = nnx.initializers.normal(STD)
        self.embedding = Embedding(config.vocabulary, d, embedding_init=draw, rngs=rngs)
        self.positions = Embedding(config.max_length, d, embedding_init=draw, rngs=rngs)
        self.cls: Any = nnx.data(None)
        if config.pooling == "cls":
            self.cls = nnx.Param(draw(rngs.params(), (d,), jnp.float32))
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.blocks = List([self._block(same) for _ in range(config.depth)])
        self.norm = LayerNorm(d, epsilon=1e-5, rngs=same)
        self.classifier = nnx.data(None)
        if config.num_classes:
            self.classifier = nnx.Linear(d, config.num_classes, rngs=same)
        draw_weights(self, lambda layer: STD, rngs=rngs)

    def __call__(
        self,
        x: Int[Array, "b n"],
        *,
        mask: Bool[Array, "b n"] | None = None,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"]:
        """Logits of shape (b, num_classes), or features (b, features) where num_classes is 0.

        Args:
          mask: True: a token, False: padding.
          rngs: key of the dropouts; needed in train mode where `dropout_rate` > 0.
          out: filled with "embedding", "blocks/0", ..., "features" and "logits".

        Raises:
          ValueError: tokens outside the vocabulary, where known; more than max_length of them.
        """
        self._check(x, mask)
        out = {} if out is None else out
        y = self.embedding(x) + self.positions(jnp.arange(x.shape[1], dtype=jnp.int32))
        y, mask = self._with_cls(y, mask)
        out["embedding"] = y = drop(self.dropout, y, rngs)
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                y = y if mask is None else jnp.where(mask[..., None], y, 0)
                out[f"blocks/{index}"] = y = block(y, mask=mask, rngs=rngs)
        out["features"] = y = self._pooled(self.norm(y), mask)
        if self.classifier is None:
            return y
        out["logits"] = y = self.classifier(y)
        return y

    def _block(self, rngs: nnx.Rngs) -> Block:
        c = self.config
        attention = make_mixer(
            c.attention,
            c.attention_options,
            c.features,
            c.num_heads,
            length=c.max_length + (c.pooling == "cls"),  # Linformer's
            dropout_rate=c.dropout_rate,
            rngs=rngs,
        )
        norms = [LayerNorm(c.features, epsilon=1e-5, rngs=rngs) for _ in range(2)]
        return Block(
            norms[0],
            attention,
            norms[1],
            Mlp(c.features, c.mlp_features, rngs=rngs),
            c.dropout_rate,
        )

    def _with_cls(
        self, y: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None
    ) -> tuple[jax.Array, jax.Array | None]:
        if self.cls is None:
            return y, mask
        b, _, d = y.shape
        first = jnp.broadcast_to(self.cls[...].astype(y.dtype), (b, 1, d))
        seen = None if mask is None else jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        return jnp.concatenate([first, y], axis=1), seen

    def _pooled(
        self, y: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None
    ) -> Float[Array, "b d"]:
        if self.cls is not None:
            return y[:, 0]
        if mask is None:
            return y.mean(axis=1)
        kept = mask[..., None].astype(y.dtype)
        return (y * kept).sum(axis=1) / jnp.maximum(kept.sum(axis=1), 1)

    def _check(self, x: jax.Array, mask: jax.Array | None) -> None:
        if x.ndim != 2 or x.shape[1] > self.config.max_length:
            raise ValueError(
                "sequence_classifier expects tokens of shape (batch, positions), at most "
                f"max_length={self.config.max_length} of them. Got {x.shape}. Pass max_length=... "
                "to create."
            )
        if mask is not None and (mask.shape != x.shape or mask.dtype != jnp.bool_):
            raise ValueError(
                f"sequence_classifier expects a boolean mask of shape {x.shape}, True: a token. "
                f"Got {mask.dtype} of shape {mask.shape}."
            )


FAMILY = Family("sequence_classifier", SequenceClassifierConfig, SequenceClassifier)
