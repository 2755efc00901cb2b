# SPDX-License-Identifier: Apache-2.0
"""MobileBERT: as deep as BERT large, with narrow blocks between bottlenecks.

Reference: Sun, Yu, Song, Liu, Yang and Zhou, *MobileBERT: a Compact Task-Agnostic BERT for
Resource-Limited Devices* (arXiv 2004.02984), section 3 and table 1.

Differs from transformers: the vector of the padding token is trained like the others.
"""

import dataclasses
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from efficient_layers.layers import Embedding, LayerNorm, List, MultiHeadAttention
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.token_encoder import (
    ACTIVATIONS,
    STD,
    TokenEncoder,
    attend,
    check_config,
)
from efficient_layers.models.torch_names.mobilebert import TORCH


@dataclasses.dataclass(frozen=True)
class MobileBertConfig:
    """What makes one MobileBERT.

    Attributes:
      embedding_features: width of the tokens' table; three neighbours are projected to `features`.
      features: width between blocks; bottleneck_features: width inside of them.
      mlp_features: width inside of each of the `num_mlps` mlps of a block.
      bottleneck_attention: values come of the bottleneck too, not of the wide stream (the paper's
        MobileBERT-tiny). A layer put in by `swap` has all of one bottleneck, too.
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
      head: "classifier" on pooled features, or "mlm": logits of every token, and no pooler.
    """

    vocabulary: int = 30522
    max_length: int = 512
    num_segments: int = 2
    embedding_features: int = 128
    features: int = 512
    bottleneck_features: int = 128
    depth: int = 24
    num_heads: int = 4
    mlp_features: int = 512
    num_mlps: int = 4
    bottleneck_attention: bool = False
    activation: str = "relu"
    epsilon: float = 1e-12
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.1
    num_classes: int = 0
    head: str = "classifier"

    def __post_init__(self) -> None:
        check_config("mobilebert", self)
        if min(self.num_mlps, self.bottleneck_features, self.num_segments) < 1:
            raise ValueError(
                "mobilebert expects num_mlps, bottleneck_features and num_segments of at least 1. "
                f"Got {self}."
            )
        if not 1 <= self.embedding_features < self.features:
            raise ValueError(
                "mobilebert expects an embedding narrower than its features. Got "
                f"embedding_features={self.embedding_features}, features={self.features}."
            )


class NoNorm(nnx.Module):
    """y = scale * x + bias, in the place of a LayerNorm.

    Reference: Sun et al. (arXiv 2004.02984), section 3.3.
    """

    def __init__(self, num_features: int) -> None:
        self.scale = nnx.Param(jnp.ones(num_features))
        self.bias = nnx.Param(jnp.zeros(num_features))

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """The same shape."""
        return x * self.scale[...] + self.bias[...]


class Projection(nnx.Module):
    """y = norm(dense(x)): into a bottleneck."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(in_features, out_features, rngs=rngs)
        self.norm = NoNorm(out_features)

    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b c"]:
        """Rows to narrower rows."""
        return self.norm(self.dense(x))


class Mlp(nnx.Module):
    """y = norm(x + down(act(up(x))))."""

    def __init__(
        self, features: int, mlp_features: int, activation: str, *, rngs: nnx.Rngs
    ) -> None:
        self.up = nnx.Linear(features, mlp_features, rngs=rngs)
        self.down = nnx.Linear(mlp_features, features, rngs=rngs)
        self.norm = NoNorm(features)
        self.activation = activation

    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b c"]:
        """Rows to rows."""
        return self.norm(x + self.down(ACTIVATIONS[self.activation](self.up(x))))


class WideValueAttention(MultiHeadAttention):
    """Queries and keys of a narrow x, values of the wide stream.

    Reference: Sun et al. (arXiv 2004.02984), figure 1 (c).
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        value_features: int,
        dropout_rate: float,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(in_features, num_heads, dropout_rate=dropout_rate, rngs=rngs)
        self.value = nnx.Linear(value_features, in_features, rngs=rngs)

    def __call__(  # type: ignore[override]  # the second argument gives values alone
        self,
        x: Float[Array, "b n c"],
        wide: Float[Array, "b n d"],
        *,
        mask: Bool[Array, "b n"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b n c"]:
        """`mask`: True = seen."""
        value = self.value(wide.reshape(-1, wide.shape[-1]))
        y = self._attend(
            self._heads(x, self.query, None, None, turn=False),
            self._heads(x, self.key, None, None, turn=False),
            value.reshape(*x.shape[:-1], self.num_heads, self.head_dim),
            mask=self._mask(mask, (*x.shape[:-1], x.shape[-2])),
            segments=None,
            **self._dropout(rngs),
        )
        return self._joined(y)


class BottleneckBlock(nnx.Module):
    """Down to the bottleneck, attention, several mlps, and up again: norm(x + expand(.)).

    Reference: Sun et al. (arXiv 2004.02984), figure 1 (c) and section 3.2.
    """

    def __init__(self, config: MobileBertConfig, *, rngs: nnx.Rngs) -> None:
        d, c, heads = config.features, config.bottleneck_features, config.num_heads
        rate = config.attention_dropout_rate
        self.reduce = Projection(d, c, rngs=rngs)
        self.attention: Any
        self.attention_reduce = nnx.data(None)
        if config.bottleneck_attention:
            self.attention = MultiHeadAttention(c, heads, dropout_rate=rate, rngs=rngs)
        else:
            self.attention_reduce = Projection(d, c, rngs=rngs)
            self.attention = WideValueAttention(
                c, heads, value_features=d, dropout_rate=rate, rngs=rngs
            )
        self.attention_norm = NoNorm(c)
        self.mlps = List(
            [
                Mlp(c, config.mlp_features, config.activation, rngs=rngs)
                for _ in range(config.num_mlps)
            ]
        )
        self.expand = nnx.Linear(c, d, rngs=rngs)
        self.norm = NoNorm(d)
        self.dropout = nnx.Dropout(config.dropout_rate)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        *,
        mask: Bool[Array, "b n"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b n d"]:
        """Tokens to tokens; `mask`: True = seen."""
        b, n, d = x.shape
        rows = x.reshape(b * n, d)  # one matrix: the fast form of the weights' gradient
        y = self.reduce(rows)
        reduce = self.attention_reduce
        narrow = (y if reduce is None else reduce(rows)).reshape(b, n, -1)
        if isinstance(self.attention, WideValueAttention):
            seen = self.attention(narrow, x, mask=mask, rngs=rngs)
        else:
            seen = attend(self.attention, narrow, mask, rngs)
        y = self.attention_norm(y + seen.reshape(y.shape))
        for mlp in self.mlps:
            y = mlp(y)
        y = drop(self.dropout, self.expand(y), rngs)
        return self.norm(rows + y).reshape(x.shape)


class TrigramEmbedding(nnx.Module):
    """norm(project([next, this, previous token]) + positions + segments).

    Reference: Sun et al. (arXiv 2004.02984), section 3.2, "embedding factorization".
    """

    def __init__(self, config: MobileBertConfig, *, rngs: nnx.Rngs) -> None:
        narrow, d = config.embedding_features, config.features
        make = partial(Embedding, embedding_init=nnx.initializers.normal(STD), rngs=rngs)
        self.tokens = make(config.vocabulary, narrow)
        self.positions = make(config.max_length, d)
        self.segments = make(config.num_segments, d)
        self.project = nnx.Linear(3 * narrow, d, rngs=placeholder(rngs))
        self.norm = NoNorm(d)
        self.dropout = nnx.Dropout(config.dropout_rate)

    def __call__(
        self,
        x: Int[Array, "b n"],
        segments: Int[Array, "b n"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b n d"]:
        """Segments None: all 0. Beyond the ends are zeros."""
        y = jnp.pad(self.tokens(x), ((0, 0), (1, 1), (0, 0)))
        y = jnp.concatenate([y[:, 2:], y[:, 1:-1], y[:, :-2]], axis=-1)
        y = self.project(y.reshape(-1, y.shape[-1])).reshape(*x.shape, -1)
        y += self.positions.table()[: x.shape[1]]
        y += self.segments.table()[0] if segments is None else self.segments(segments)
        return drop(self.dropout, self.norm(y), rngs)


class WideTokenHead(nnx.Module):
    """logits = [E, rest] norm(act(dense(x))) + bias: the tokens' narrow table E, made wider.

    The kernel of `rest` is (features - embedding_features, vocabulary).
    """

    def __init__(self, config: MobileBertConfig, *, rngs: nnx.Rngs) -> None:
        d, narrow = config.features, config.embedding_features
        self.dense = nnx.Linear(d, d, rngs=rngs)
        self.norm = LayerNorm(d, epsilon=config.epsilon, rngs=rngs)
        self.rest = nnx.Linear(d - narrow, config.vocabulary, rngs=rngs)
        self.activation = config.activation

    def __call__(self, x: Float[Array, "b n d"], tokens: Any) -> Float[Array, "b n v"]:
        """`tokens`: the embedding of the input."""
        rows = self.dense(x.reshape(-1, x.shape[-1]))
        rows = self.norm(ACTIVATIONS[self.activation](rows))
        narrow = rows.shape[-1] - self.rest.in_features
        logits = tokens.attend(rows[:, :narrow]) + self.rest(rows[:, narrow:])
        return logits.reshape(*x.shape[:-1], -1)


class MobileBert(TokenEncoder):
    """Trigrams of tokens, bottleneck blocks, tanh pooler, classifier."""

    def __init__(self, config: MobileBertConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same, d = placeholder(rngs), config.features
        self.embeddings = TrigramEmbedding(config, rngs=rngs)
        self.blocks = List([BottleneckBlock(config, rngs=same) for _ in range(config.depth)])
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.pooler, self.classifier, self.mlm = nnx.data(None), nnx.data(None), nnx.data(None)
        if config.head == "mlm":
            self.mlm = WideTokenHead(config, rngs=same)
        else:
            self.pooler = nnx.Linear(d, d, rngs=same)
            if config.num_classes:
                self.classifier = nnx.Linear(d, config.num_classes, rngs=same)
        draw_weights(self, lambda layer: STD, rngs=rngs)


FAMILY = Family(
    "mobilebert",
    MobileBertConfig,
    MobileBert,
    names={"google/mobilebert-uncased": {}},
    torch=TORCH,
)
