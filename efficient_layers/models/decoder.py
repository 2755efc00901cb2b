# SPDX-License-Identifier: Apache-2.0
"""The decoder of Llama, Mistral, Qwen and SmolLM: RoPE, grouped queries, SwiGLU, RMSNorm.

    create("decoder", attention="GatedLinearAttention")
    create("decoder", attention="SlidingWindowAttention", attention_options={"window": 256})

Any causal layer of `el.layers` may mix the positions. One that has no use for `num_kv_heads`,
`head_dim`, RoPE or `qk_norm` does without; one that has no order of its own (linear attention) then
knows positions by causality alone.

References: Touvron et al., *LLaMA* (arXiv 2302.13971), section 2.2; Touvron et al., *Llama 2*
(arXiv 2307.09288); Jiang et al., *Mistral 7B* (arXiv 2310.06825), table 1; Yang et al., *Qwen2
Technical Report* (arXiv 2407.10671), for the biases of query, key and value; Yang et al., *Qwen3
Technical Report* (arXiv 2505.09388), for qk_norm; sizes: the `config.json` of each published model.
"""

import dataclasses
import math
from typing import Any

import jax
from flax import nnx

from efficient_layers.layers import Embedding, GatedLinearUnit, List, RMSNorm, RoPE
from efficient_layers.layers.attention import Attention
from efficient_layers.models.causal_lm import Block, CausalLM
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, placeholder
from efficient_layers.models.mixer import make_mixer, options
from efficient_layers.models.torch_names.decoder import TORCH

STD = 0.02  # of every weight; of those that end a residual branch, over sqrt(2 depth)
ACTIVATIONS = {"silu": jax.nn.silu, "gelu_tanh": jax.nn.gelu, "relu": jax.nn.relu}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """What makes one decoder. The default is SmolLM-135M.

    Attributes:
      num_kv_heads: heads of keys and values, shared by num_heads / num_kv_heads heads of queries.
      head_dim: features / num_heads where not given.
      mlp_features: width of the gated layer.
      rope_base: RoPE's slowest pair of features turns by about 1 / rope_base a position.
      tied: logits come of the embedding's table, else of a linear layer of their own.
      qkv_bias: query, key and value have biases (Qwen2); the output never has one.
      attention: the layer of `el.layers` that mixes positions; see `models/mixer.py`.
      attention_options: arguments of its constructor, a dict or pairs.
    """

    vocabulary: int = 49152
    max_length: int = 2048
    features: int = 576
    depth: int = 30
    num_heads: int = 9
    num_kv_heads: int = 3
    head_dim: int | None = None
    mlp_features: int = 1536
    rope_base: float = 10_000.0
    epsilon: float = 1e-5
    tied: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    activation: str = "silu"
    dropout_rate: float = 0.0
    attention: str = "MultiHeadAttention"
    attention_options: tuple[Any, ...] | dict[str, Any] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attention_options", options(self.attention_options))
        counts = ("vocabulary", "max_length", "features", "depth", "num_heads", "num_kv_heads")
        sizes = [getattr(self, name) for name in (*counts, "mlp_features")]
        if min(sizes) < 1 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                f"decoder expects sizes of at least 1 and 0 <= dropout_rate < 1. Got {self}."
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"decoder has no activation {self.activation!r}. "
                f"{nearest(self.activation, ACTIVATIONS)}"
            )


class Decoder(CausalLM):
    """Token embedding, pre-norm blocks of a mixer and a gated layer, a last norm, logits."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        same, d = placeholder(rngs), config.features
        draw = nnx.initializers.normal(STD)
        self.embedding = Embedding(config.vocabulary, d, embedding_init=draw, rngs=rngs)
        self.positions = nnx.data(None)
        self.dropout = nnx.Dropout(config.dropout_rate)
        self.blocks = List([self._block(same) for _ in range(config.depth)])
        self.norm = RMSNorm(d, epsilon=config.epsilon, rngs=same)
        self.head = nnx.data(None)
        if not config.tied:
            self.head = nnx.Linear(d, config.vocabulary, use_bias=False, rngs=same)
        outs = (getattr(block.attention, "out", None) for block in self.blocks)
        ends = {*map(id, outs), *(id(block.mlp.down) for block in self.blocks)}
        deep = 1 / math.sqrt(2 * config.depth)
        draw_weights(self, lambda layer: STD * (deep if id(layer) in ends else 1), rngs=rngs)

    def _block(self, rngs: nnx.Rngs) -> Block:
        c = self.config
        attention = make_mixer(
            c.attention,
            c.attention_options,
            c.features,
            c.num_heads,
            num_kv_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            causal=True,
            position=RoPE(base=c.rope_base),
            qk_norm=c.qk_norm,
            use_bias=c.qkv_bias,
            rngs=rngs,
        )
        if c.qkv_bias and isinstance(attention, Attention):
            inner = attention.out.in_features
            attention.out = nnx.Linear(inner, c.features, use_bias=False, rngs=rngs)
        norms = [RMSNorm(c.features, epsilon=c.epsilon, rngs=rngs) for _ in range(2)]
        act = ACTIVATIONS[c.activation]
        mlp = GatedLinearUnit(c.features, c.mlp_features, act=act, rngs=rngs)
        return Block(norms[0], attention, norms[1], mlp, c.dropout_rate)


def _fields(
    features: int, mlp_features: int, depth: int, heads: int, kv_heads: int, **others: Any
) -> dict[str, Any]:
    sizes = {"features": features, "mlp_features": mlp_features, "depth": depth}
    return {**sizes, "num_heads": heads, "num_kv_heads": kv_heads, **others}


_LLAMA: dict[str, Any] = {"vocabulary": 32000, "tied": False}
_SMOL2: dict[str, Any] = {"max_length": 8192, "rope_base": 100_000.0}
_QWEN: dict[str, Any] = {
    "vocabulary": 151936,
    "max_length": 32768,
    "rope_base": 1_000_000.0,
    "epsilon": 1e-6,
}
_QWEN2 = {**_QWEN, "qkv_bias": True}
_QWEN3 = {**_QWEN, "max_length": 40960, "qk_norm": True, "head_dim": 128}
_MISTRAL: dict[str, Any] = {
    **_LLAMA,
    "max_length": 32768,
    "attention": "SlidingWindowAttention",
    "attention_options": {"window": 4096},
}
_LLAMA3: dict[str, Any] = {
    "vocabulary": 128256,
    "max_length": 8192,
    "tied": False,
    "rope_base": 500_000.0,
}

FAMILY = Family(
    "decoder",
    DecoderConfig,
    Decoder,
    names={
        "HuggingFaceTB/SmolLM-135M": {},
        "HuggingFaceTB/SmolLM-360M": _fields(960, 2560, 32, 15, 5),
        "HuggingFaceTB/SmolLM-1.7B": _fields(2048, 8192, 24, 32, 32),
        "HuggingFaceTB/SmolLM2-135M": _SMOL2,
        "HuggingFaceTB/SmolLM2-360M": _fields(960, 2560, 32, 15, 5, **_SMOL2),
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _fields(2048, 5632, 22, 32, 4, **_LLAMA),
        "meta-llama/Llama-2-7b-hf": _fields(4096, 11008, 32, 32, 32, **_LLAMA, max_length=4096),
        "meta-llama/Llama-2-13b-hf": _fields(5120, 13824, 40, 40, 40, **_LLAMA, max_length=4096),
        "meta-llama/Meta-Llama-3-8B": _fields(4096, 14336, 32, 32, 8, **_LLAMA3),
        "mistralai/Mistral-7B-v0.1": _fields(4096, 14336, 32, 32, 8, **_MISTRAL),
        "Qwen/Qwen2-0.5B": _fields(896, 4864, 24, 14, 2, **_QWEN2),
        "Qwen/Qwen2-1.5B": _fields(1536, 8960, 28, 12, 2, **_QWEN2),
        "Qwen/Qwen2.5-0.5B": _fields(896, 4864, 24, 14, 2, **_QWEN2),
        "Qwen/Qwen2.5-1.5B": _fields(1536, 8960, 28, 12, 2, **_QWEN2),
        "Qwen/Qwen2.5-3B": _fields(2048, 11008, 36, 16, 2, **_QWEN2),
        "Qwen/Qwen3-0.6B": _fields(1024, 3072, 28, 16, 8, **_QWEN3),
        "Qwen/Qwen3-1.7B": _fields(2048, 6144, 28, 16, 8, **_QWEN3),
        "Qwen/Qwen3-4B": _fields(2560, 9728, 36, 32, 8, **_QWEN3),
        "Qwen/Qwen3-8B": _fields(4096, 12288, 36, 32, 8, **{**_QWEN3, "tied": False}),
    },
    torch=TORCH,
)
