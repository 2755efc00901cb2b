# SPDX-License-Identifier: Apache-2.0
"""The model of MQAR, associative recall: blocks of a mixer alone, logits at all positions.

    create("mqar", attention="GatedLinearAttention")
    create("mqar", attention="SlidingWindowAttention", attention_options={"window": 8})

Reference: Arora et al., *Zoology: Measuring and Improving Recall in Efficient Language Models*
(arXiv 2312.04927), section 3 and appendix; sizes of github.com/HazyResearch/zoology: 2 blocks, one
head, no mlp, learned positions for softmax attention only, dropout 0.1 of embeddings and attention
weights, logits by the table of tokens. Differs: their block without an mlp still adds its second
normalisation to the residual stream; here it adds nothing.
"""

import dataclasses
import math
from typing import Any

from flax import nnx

from efficient_layers.layers import Embedding, LayerNorm, List
from efficient_layers.layers.attention import Attention
from efficient_layers.models.causal_lm import Block, CausalLM, Mlp
from efficient_layers.models.family import Family
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.mixer import make_mixer, options

STD = 0.02  # of every weight; of those that end a residual branch, over sqrt(2 depth)


@dataclasses.dataclass(frozen=True)
class MQARConfig:
    """What makes one model.

    Attributes:
      mlp_features: 0: blocks have no mlp.
      positions: a learned table of positions; None: where the mixer is softmax attention.
      dropout_rate: of embeddings, and of attention weights.
      attention: the causal layer of `el.layers` that mixes positions; see `models/mixer.py`.
      attention_options: arguments of its constructor, a dict or pairs.
    """

    vocabulary: int = 8192
    max_length: int = 512
    features: int = 64
    depth: int = 2
    num_heads: int = 1
    mlp_features: int = 0
    positions: bool | None = None
    dropout_rate: float = 0.1
    attention: str = "MultiHeadAttention"
    attention_options: tuple[Any, ...] | dict[str, Any] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attention_options", options(self.attention_options))
        sizes = (self.vocabulary, self.max_length, self.features, self.depth, self.num_heads)
        if min(sizes) < 1 or self.mlp_features < 0 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "mqar expects sizes of at least 1, mlp_features >= 0 and 0 <= dropout_rate < 1. "
                f"Got {self}."
            )


class MQAR(CausalLM):
    """Token embedding, pre-norm blocks of a mixer, a last norm, logits by the tokens' table."""

    def __init__(self, config: MQARConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same, d = placeholder(rngs), config.features
        draw = nnx.initializers.normal(STD)
        self.embedding = Embedding(config.vocabulary, d, embedding_init=draw, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.blocks = List([self._block(same) for _ in range(config.depth)])
        self.norm = LayerNorm(d, epsilon=1e-5, rngs=same)
        self.positions, self.head = nnx.data(None), nnx.data(None)
        learned = config.positions
        if learned is None:
            learned = isinstance(self.blocks[0].attention, Attention)
        if learned:
            self.positions = Embedding(config.max_length, d, embedding_init=draw, rngs=rngs)
        ends = {id(getattr(block.attention, "out", None)) for block in self.blocks}
        deep = 1 / math.sqrt(2 * config.depth)
        draw_weights(self, lambda layer: STD * (deep if id(layer) in ends else 1), rngs=rngs)

    def _block(self, rngs: nnx.Rngs) -> Block:
        c = self.config
        attention = make_mixer(
            c.attention,
            c.attention_options,
            c.features,
            c.num_heads,
            causal=True,
            dropout_rate=c.dropout_rate,
            rngs=rngs,
        )
        norm_1, norm_2, mlp = LayerNorm(c.features, epsilon=1e-5, rngs=rngs), None, None
        if c.mlp_features:
            norm_2 = LayerNorm(c.features, epsilon=1e-5, rngs=rngs)
            mlp = Mlp(c.features, c.mlp_features, rngs=rngs)
        return Block(norm_1, attention, norm_2, mlp, 0.0)


FAMILY = Family("mqar", MQARConfig, MQAR)
