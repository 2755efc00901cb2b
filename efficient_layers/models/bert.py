# SPDX-License-Identifier: Apache-2.0
"""BERT: a bidirectional encoder of tokens, from tiny to large.

Reference: Devlin, Chang, Lee and Toutanova, *BERT: Pre-training of Deep Bidirectional Transformers
for Language Understanding* (arXiv 1810.04805), section 3; Turc, Chang, Lee and Toutanova,
*Well-Read Students Learn Better: On the Importance of Pre-training Compact Models* (arXiv
1908.08962), table 1, for the 24 miniatures. The classifier is that of section 4.1 of the first.

Differs from transformers: the vector of the padding token is trained like the others.
"""

import dataclasses
from typing import Any

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
from efficient_layers.models.torch_names.bert import TORCH

FOUR_TIMES: Any = None


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """What makes one BERT.

    Attributes:
      max_length: rows of the table of positions.
      num_segments: rows of the table of sentences A, B.
      mlp_features: 4 x features where not given.
      dropout_rate: of embeddings, ends of residual branches, and pooled features.
      num_classes: 0 leaves the classifier out; the model then returns pooled features.
      head: "classifier" on pooled features, or "mlm": logits of every token, and no pooler.
    """

    vocabulary: int = 30522
    max_length: int = 512
    num_segments: int = 2
    features: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_features: int = FOUR_TIMES
    activation: str = "gelu"
    epsilon: float = 1e-12
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    num_classes: int = 0
    head: str = "classifier"

    def __post_init__(self) -> None:
        if self.mlp_features is FOUR_TIMES:
            object.__setattr__(self, "mlp_features", 4 * self.features)
        check_config("bert", self)


class Bert(TokenEncoder):
    """Tokens, positions and segments, post-norm blocks, tanh pooler, classifier."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same, d = placeholder(rngs), config.features
        self.embeddings = TokenEmbedding(
            config.vocabulary,
            config.max_length,
            config.num_segments,
            d,
            epsilon=config.epsilon,
            dropout_rate=config.dropout_rate,
            rngs=rngs,
        )
        self.blocks = List([self._block(same) for _ in range(config.depth)])
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.pooler, self.classifier, self.mlm = nnx.data(None), nnx.data(None), nnx.data(None)
        if config.head == "mlm":
            self.mlm = MaskedTokenHead(
                d,
                d,
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


def _size(depth: int, features: int, vocabulary: int = 30522) -> dict[str, int]:
    heads = features // 64
    return {"depth": depth, "features": features, "num_heads": heads, "vocabulary": vocabulary}


MINIATURES = {
    f"google/bert_uncased_L-{depth}_H-{features}_A-{features // 64}": _size(depth, features)
    for depth in (2, 4, 6, 8, 10, 12)
    for features in (128, 256, 512, 768)
}

# The first four were converted from the miniatures of these sizes.
_SIZES = {
    "prajjwal1/bert-tiny": _size(2, 128),
    "prajjwal1/bert-mini": _size(4, 256),
    "prajjwal1/bert-small": _size(4, 512),
    "prajjwal1/bert-medium": _size(8, 512),
}

_GOOGLE = {
    "bert-base-uncased": _size(12, 768),
    "bert-base-cased": _size(12, 768, 28996),
    "bert-base-chinese": _size(12, 768, 21128),
    "bert-base-multilingual-cased": _size(12, 768, 119547),
    "bert-large-uncased": _size(24, 1024),
    "bert-large-cased": _size(24, 1024, 28996),
}

FAMILY = Family(
    "bert",
    BertConfig,
    Bert,
    names={
        **MINIATURES,
        **_SIZES,
        **_GOOGLE,
        **{f"google-bert/{name}": fields for name, fields in _GOOGLE.items()},
    },
    torch=TORCH,
)
