# SPDX-License-Identifier: Apache-2.0
"""GPT-2 and DistilGPT2: causal language models with learned positions and a tied output.

Reference: Radford, Wu, Child, Luan, Amodei and Sutskever, *Language Models are Unsupervised
Multitask Learners*, 2019, section 2.3 and table 2; Sanh et al., *DistilBERT* (arXiv 1910.01108),
for the half as deep one. The tanh form of gelu, as the authors' code has it.
"""

import dataclasses
import math

from flax import nnx

from efficient_layers.layers import Embedding, LayerNorm, List, MultiHeadAttention
from efficient_layers.models.causal_lm import Block, CausalLM, Mlp
from efficient_layers.models.family import Family
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.torch_names.gpt2 import TORCH

STD = 0.02  # of every weight; of those that end a residual branch, over sqrt(2 depth)


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """What makes one GPT-2.

    Attributes:
      features: width of the residual stream; the mlp is 4 times as wide.
      max_length: rows of the table of positions.
      dropout_rate: of embeddings, attention weights and the ends of residual branches.
    """

    vocabulary: int = 50257
    max_length: int = 1024
    features: int = 768
    depth: int = 12
    num_heads: int = 12
    dropout_rate: float = 0.1
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        sizes = (self.vocabulary, self.max_length, self.features, self.depth, self.num_heads)
        if min(sizes) < 1 or self.features % self.num_heads or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "gpt2 expects sizes of at least 1, num_heads that divide features and "
                f"0 <= dropout_rate < 1. Got {self}."
            )


class GPT2(CausalLM):
    """Token and position embeddings, pre-norm blocks, a last norm, logits by the tokens' table."""

    def __init__(self, config: GPT2Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same, d = placeholder(rngs), config.features
        draw = nnx.initializers.normal(STD)
        self.embedding = Embedding(config.vocabulary, d, embedding_init=draw, rngs=rngs)
        self.positions = Embedding(
            config.max_length,
            d,
            embedding_init=nnx.initializers.normal(STD / 2),  # their code's 0.01
            rngs=rngs,
        )
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.blocks = List([self._block(same) for _ in range(config.depth)])
        self.norm = LayerNorm(d, epsilon=config.epsilon, rngs=same)
        self.head = nnx.data(None)
        ends = {id(layer) for b in self.blocks for layer in (b.attention.out, b.mlp.down)}
        deep = 1 / math.sqrt(2 * config.depth)
        draw_weights(self, lambda layer: STD * (deep if id(layer) in ends else 1), rngs=rngs)

    def _block(self, rngs: nnx.Rngs) -> Block:
        c = self.config
        attention = MultiHeadAttention(
            c.features, c.num_heads, causal=True, dropout_rate=c.dropout_rate, rngs=rngs
        )
        norms = [LayerNorm(c.features, epsilon=c.epsilon, rngs=rngs) for _ in range(2)]
        mlp = Mlp(c.features, 4 * c.features, rngs=rngs)
        return Block(norms[0], attention, norms[1], mlp, c.dropout_rate)


_SIZES: dict[str, dict[str, int]] = {
    "gpt2": {},
    "gpt2-medium": {"features": 1024, "depth": 24, "num_heads": 16},
    "gpt2-large": {"features": 1280, "depth": 36, "num_heads": 20},
    "gpt2-xl": {"features": 1600, "depth": 48, "num_heads": 25},
}

FAMILY = Family(
    "gpt2",
    GPT2Config,
    GPT2,
    names={
        **{name: fields for name, fields in _SIZES.items() if name != "gpt2"},
        **{f"openai-community/{name}": fields for name, fields in _SIZES.items()},
        "distilgpt2": {"depth": 6},
        "distilbert/distilgpt2": {"depth": 6},
    },
    torch=TORCH,
)
