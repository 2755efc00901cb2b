# SPDX-License-Identifier: Apache-2.0
"""DistilBERT: half of BERT's blocks, without segments and pooler.

Reference: Sanh, Debut, Chaumond and Wolf, *DistilBERT, a distilled version of BERT: smaller,
faster, cheaper and lighter* (arXiv 1910.01108), section 3.

Differs from transformers: the vector of the padding token is trained like the others.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from efficient_layers.layers import List
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
from efficient_layers.models.torch_names.distilbert import TORCH

FOUR_TIMES: Any = None


@dataclasses.dataclass(frozen=True)
class DistilBertConfig:
    """What makes one DistilBERT.

    Attributes:
      max_length: rows of the table of positions.
      mlp_features: 4 x features where not given.
      dropout_rate: of embeddings and the ends of residual branches.
      num_classes: 0 leaves the classifier out; the model then returns the first token's state.
      head: "classifier" on the first token, or "mlm": logits of every token.
    """

    vocabulary: int = 30522
    max_length: int = 512
    features: int = 768
    depth: int = 6
    num_heads: int = 12
    mlp_features: int = FOUR_TIMES
    activation: str = "gelu"
    epsilon: float = 1e-12
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    classifier_dropout_rate: float = 0.2
    num_classes: int = 0
    head: str = "classifier"

    def __post_init__(self) -> None:
        if self.mlp_features is FOUR_TIMES:
            object.__setattr__(self, "mlp_features", 4 * self.features)
        check_config("distilbert", self)


class DistilBert(TokenEncoder):
    """Tokens and positions, post-norm blocks, a classifier of two layers on the first token."""

    def __init__(self, config: DistilBertConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same, d = placeholder(rngs), config.features
        self.embeddings = TokenEmbedding(
            config.vocabulary,
            config.max_length,
            0,
            d,
            epsilon=config.epsilon,
            dropout_rate=config.dropout_rate,
            rngs=rngs,
        )
        self.blocks = List([self._block(same) for _ in range(config.depth)])
        self.dropout = nnx.Dropout(config.classifier_dropout_rate)
        self.pre_classifier: Any = nnx.data(None)
        self.classifier, self.mlm = nnx.data(None), nnx.data(None)
        if config.head == "mlm":
            self.mlm = MaskedTokenHead(
                d,
                d,
                config.vocabulary,
                activation=config.activation,
                epsilon=config.epsilon,
                rngs=same,
            )
        elif config.num_classes:
            self.pre_classifier = nnx.Linear(d, d, rngs=same)
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

    def _pool(self, first: jax.Array) -> jax.Array:
        return first

    def _classify(self, features: jax.Array, rngs: Any) -> jax.Array:
        return super()._classify(jax.nn.relu(self.pre_classifier(features)), rngs)


_SIZES: dict[str, dict[str, int]] = {
    "distilbert-base-uncased": {},
    "distilbert-base-cased": {"vocabulary": 28996},
    "distilbert-base-multilingual-cased": {"vocabulary": 119547},
}

FAMILY = Family(
    "distilbert",
    DistilBertConfig,
    DistilBert,
    names={
        f"{owner}{name}": fields for owner in ("", "distilbert/") for name, fields in _SIZES.items()
    },
    torch=TORCH,
)
