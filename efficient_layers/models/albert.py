# SPDX-License-Identifier: Apache-2.0
"""ALBERT: one block for all depths, and a narrow embedding that is projected to the width.

Reference: Lan, Chen, Goodman, Gimpel, Sharma and Soricut, *ALBERT: A Lite BERT for Self-supervised
Learning of Language Representations* (arXiv 1909.11942), sections 3.1 and 4.4, table 1. The tanh
form of gelu, as the authors' code has it; rates of dropout: 0.1 in version 1 but for xxlarge, 0 in
version 2 (the authors' README).

Differs from transformers: the mlp's end is dropped out too, as the authors' code does it; the
vector of the padding token is trained like the others.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from efficient_layers.layers import SharedStack
from efficient_layers.models.family import Family
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.token_encoder import (
    STD,
    MaskedTokenHead,
    PostNormBlock,
    TokenEmbedding,
    TokenEncoder,
    check_config,
)
from efficient_layers.models.torch_names.albert import TORCH

FOUR_TIMES: Any = None


@dataclasses.dataclass(frozen=True)
class AlbertConfig:
    """What makes one ALBERT.

    Attributes:
      max_length: rows of the table of positions.
      num_segments: rows of the table of sentences A, B.
      embedding_features: width of the three tables.
      depth: applications of blocks; groups: different blocks, each for depth / groups of them.
      mlp_features: 4 x features where not given.
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
      head: "classifier" on pooled features, or "mlm": logits of every token, and no pooler.
    """

    vocabulary: int = 30000
    max_length: int = 512
    num_segments: int = 2
    embedding_features: int = 128
    features: int = 768
    depth: int = 12
    groups: int = 1
    num_heads: int = 12
    mlp_features: int = FOUR_TIMES
    activation: str = "gelu_tanh"
    epsilon: float = 1e-12
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    classifier_dropout_rate: float = 0.1
    num_classes: int = 0
    head: str = "classifier"

    def __post_init__(self) -> None:
        if self.mlp_features is FOUR_TIMES:
            object.__setattr__(self, "mlp_features", 4 * self.features)
        check_config("albert", self)


class Albert(TokenEncoder):
    """Narrow embeddings, a projection, shared post-norm blocks, tanh pooler, classifier.

    The blocks are `blocks/layers/0`, ...: as many as `groups`; depth costs no parameters.
    """

    def __init__(self, config: AlbertConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same, d, narrow = placeholder(rngs), config.features, config.embedding_features
        self.embeddings = TokenEmbedding(
            config.vocabulary,
            config.max_length,
            config.num_segments,
            narrow,
            epsilon=config.epsilon,
            dropout_rate=config.dropout_rate,
            rngs=rngs,
        )
        self.project = nnx.Linear(narrow, d, rngs=same)
        self.blocks = SharedStack(self._block, config.depth, groups=config.groups, rngs=same)
        self.dropout = nnx.Dropout(config.classifier_dropout_rate)
        self.pooler, self.classifier, self.mlm = nnx.data(None), nnx.data(None), nnx.data(None)
        if config.head == "mlm":
            self.mlm = MaskedTokenHead(
                d,
                narrow,
                config.vocabulary,
                activation=config.activation,
                epsilon=config.epsilon,
                rngs=same,
            )
        else:
            self.pooler = nnx.Linear(d, d, rngs=same)
            if config.num_classes:
                self.classifier = nnx.Linear(d, config.num_classes, rngs=same)
        draw_weights(self, lambda layer: STD, rngs=rngs)

    def _block(self, rngs: nnx.Rngs) -> PostNormBlock:
        c = self.config
        return PostNormBlock(
            c.features,
            c.num_heads,
            c.mlp_features,
            activation=c.activation,
            epsilon=c.epsilon,
            dropout_rate=c.dropout_rate,
            attention_dropout_rate=c.attention_dropout_rate,
            rngs=rngs,
        )

    def _embed(self, x: jax.Array, segments: Any, rngs: Any) -> jax.Array:
        y = super()._embed(x, segments, rngs)
        return self.project(y.reshape(-1, y.shape[-1])).reshape(*x.shape, -1)

    def _encode(
        self, x: jax.Array, mask: Any, rngs: Any, out: dict[str, jax.Array], first: bool
    ) -> jax.Array:
        return self.blocks(x, mask=mask, rngs=rngs)


_SIZES = {
    "base": {"features": 768, "depth": 12, "num_heads": 12},
    "large": {"features": 1024, "depth": 24, "num_heads": 16},
    "xlarge": {"features": 2048, "depth": 24, "num_heads": 16},
    "xxlarge": {"features": 4096, "depth": 12, "num_heads": 64},
}


def _published(size: str, version: str) -> dict[str, Any]:
    rate = 0.1 if version == "v1" and size != "xxlarge" else 0.0
    return {**_SIZES[size], "dropout_rate": rate, "attention_dropout_rate": rate}


FAMILY = Family(
    "albert",
    AlbertConfig,
    Albert,
    names={
        f"{owner}albert-{size}-{version}": _published(size, version)
        for owner in ("", "albert/")
        for size in _SIZES
        for version in ("v1", "v2")
    },
    torch=TORCH,
)
