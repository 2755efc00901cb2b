# SPDX-License-Identifier: Apache-2.0
"""What BERT and its relatives share: embeddings, the post-norm block, tokens to features to logits.

Reference: Devlin, Chang, Lee and Toutanova, *BERT: Pre-training of Deep Bidirectional Transformers
for Language Understanding* (arXiv 1810.04805), section 3.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from efficient_layers.layers import (
    Embedding,
    GroupedQueryAttention,
    LayerNorm,
    MultiHeadAttention,
    MultiQueryAttention,
)
from efficient_layers.layers.dropout import drop
from efficient_layers.models.fields import nearest
from efficient_layers.ops.activation import gelu
from efficient_layers.ops.lowering import current_lowering

STD = 0.02  # of every weight and embedding at the start

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}

HEADS = ("classifier", "mlm")


def check_config(family: str, config: Any) -> None:
    """Raises ValueError for sizes, rates or names that no encoder has."""
    known = vars(config)
    sizes = ("vocabulary", "max_length", "features", "depth", "num_heads", "mlp_features")
    if min(known[name] for name in sizes) < 1 or config.num_classes < 0:
        raise ValueError(
            f"{family} expects {', '.join(sizes)} of at least 1 and num_classes of at least 0. "
            f"Got {config}."
        )
    rates = {name: rate for name, rate in known.items() if name.endswith("dropout_rate")}
    if not all(0 <= rate < 1 for rate in rates.values()):
        raise ValueError(f"{family} expects rates of dropout in [0, 1). Got {rates}.")
    if config.activation not in ACTIVATIONS:
        raise ValueError(
            f"{family} has no activation {config.activation!r}. "
            f"{nearest(config.activation, ACTIVATIONS)}"
        )
    if config.head not in HEADS:
        raise ValueError(f"{family} has no head {config.head!r}. {nearest(config.head, HEADS)}")
    if config.head == "mlm" and config.num_classes:
        raise ValueError(
            f"{family} with head='mlm' has logits of the vocabulary, and no classes. "
            f"Got num_classes={config.num_classes}."
        )


class TokenEmbedding(nnx.Module):
    """dropout(norm(tokens[x] + positions + segments[s])); (b, n) -> (b, n, features)."""

    def __init__(
        self,
        vocabulary: int,
        max_length: int,
        num_segments: int,
        features: int,
        *,
        epsilon: float,
        dropout_rate: float,
        rngs: nnx.Rngs,
    ) -> None:
        make = partial(
            Embedding, features=features, embedding_init=nnx.initializers.normal(STD), rngs=rngs
        )
        self.tokens = make(vocabulary)
        self.positions = make(max_length)
        self.segments = nnx.data(make(num_segments) if num_segments else None)
        self.norm = LayerNorm(features, epsilon=epsilon, rngs=rngs)
        self.dropout = nnx.Dropout(dropout_rate)

    def __call__(
        self,
        x: Int[Array, "b n"],
        segments: Int[Array, "b n"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b n d"]:
        """Segments None: all 0."""
        y = self.tokens(x) + self.positions.table()[: x.shape[1]]
        if self.segments is not None:
            y += self.segments.table()[0] if segments is None else self.segments(segments)
        return drop(self.dropout, self.norm(y), rngs)


class PostNormBlock(nnx.Module):
    """y = norm_1(x + attention(x)), then norm_2(y + down(act(up(y)))).

    Reference: Vaswani et al., *Attention Is All You Need* (arXiv 1706.03762), section 3.1.
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        mlp_features: int,
        *,
        activation: str,
        epsilon: float,
        dropout_rate: float,
        attention_dropout_rate: float,
        rngs: nnx.Rngs,
    ) -> None:
        self.attention: Any = MultiHeadAttention(
            features, num_heads, dropout_rate=attention_dropout_rate, rngs=rngs
        )
        self.norm_1 = LayerNorm(features, epsilon=epsilon, rngs=rngs)
        self.up = nnx.Linear(features, mlp_features, rngs=rngs)
        self.down = nnx.Linear(mlp_features, features, rngs=rngs)
        self.norm_2 = LayerNorm(features, epsilon=epsilon, rngs=rngs)
        self.dropout = nnx.Dropout(dropout_rate)
        self.activation = activation

    def __call__(
        self,
        x: Float[Array, "b n d"],
        *,
        mask: Bool[Array, "b n"] | None = None,
        rngs: nnx.Rngs | None = None,
        first: bool = False,
    ) -> Float[Array, "b n d"]:
        """Tokens to tokens, or with `first` to the first of them alone; `mask` as in `attend`."""
        y = attend(self.attention, x, mask, rngs, first=first)
        x = self.norm_1((x[:, :1] if first else x) + drop(self.dropout, y, rngs))
        rows = x.reshape(-1, x.shape[-1])  # one matrix: the fast form of the weights' gradient
        y = self.down(ACTIVATIONS[self.activation](self.up(rows))).reshape(x.shape)
        return self.norm_2(x + drop(self.dropout, y, rngs))


def attend(
    attention: Any, x: jax.Array, mask: jax.Array | None, rngs: Any, *, first: bool = False
) -> jax.Array:
    """`attention(x)`, with the mask and `rngs` where it knows them; `first`: of the first token.

    Raises:
      ValueError: a mask for a layer that takes none, as `LinearAttention` put in by `swap`.
    """
    known = inspect.signature(type(attention).__call__).parameters
    if mask is not None and "mask" not in known:
        raise ValueError(
            f"{type(attention).__name__} takes no mask. Got one of shape {mask.shape}. Call the "
            "model without it on sequences of equal length, or use a layer that takes one, as "
            "MultiHeadAttention."
        )
    inputs = {"mask": mask, "rngs": rngs}
    given = {name: v for name, v in inputs.items() if v is not None and name in known}
    if not first:
        return attention(x, **given)
    plain = type(attention) in (MultiHeadAttention, GroupedQueryAttention, MultiQueryAttention)
    if plain and not attention.causal and attention.position is None:
        return attention(x[:, :1], x, **given)
    return attention(x, **given)[:, :1]


class MaskedTokenHead(nnx.Module):
    """logits = E norm(act(dense(x))) + bias, with the table E of the input tokens.

    Reference: Devlin et al. (arXiv 1810.04805), section 3.1, task 1.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        vocabulary: int,
        *,
        activation: str,
        epsilon: float,
        rngs: nnx.Rngs,
    ) -> None:
        self.dense = nnx.Linear(in_features, features, rngs=rngs)
        self.norm = LayerNorm(features, epsilon=epsilon, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(vocabulary))
        self.activation = activation

    def __call__(self, x: Float[Array, "b n d"], tokens: Any) -> Float[Array, "b n v"]:
        """`tokens`: the embedding of the input."""
        rows = self.dense(x.reshape(-1, x.shape[-1]))
        rows = self.norm(ACTIVATIONS[self.activation](rows))
        return (tokens.attend(rows) + self.bias[...]).reshape(*x.shape[:-1], -1)


class TokenEncoder(nnx.Module):
    """Embeddings, blocks, and a head: features of the first token, a classifier, or the tokens'.

    A family's constructor sets `config` (with `vocabulary` and `max_length`), `embeddings`,
    `blocks`, `dropout` (before the classifier), and `pooler`, `classifier`, `mlm`: or None.
    """

    config: Any
    embeddings: Any
    blocks: Any
    dropout: nnx.Dropout
    pooler: Any
    classifier: Any
    mlm: Any

    def __call__(
        self,
        x: Int[Array, "b n"],
        *,
        mask: Bool[Array, "b n"] | None = None,
        segments: Int[Array, "b n"] | None = None,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b k"] | Float[Array, "b n v"]:
        """Logits (b, num_classes); features (b, d) at 0 classes; (b, n, vocabulary) of head "mlm".

        Where features of the first token are all that is read (no head "mlm", no `out`), the last
        block of BERT and DistilBERT computes no others: a fifth of BERT-small's time. The reference
        lowering, and with it `el.measure.cost`, computes all.

        Args:
          mask: True = a token, False = padding, which nobody sees. None: all are seen.
          segments: which sentence a token is of; None: the first.
          rngs: key of the dropouts; needed in train mode where a rate is above 0.
          out: filled with "embeddings", "blocks/0", ..., "tokens" (b, n, d), then "features" and
            "logits", where there are any.

        Raises:
          ValueError: tokens or segments out of range, where known (inside a transform: NaN); more
            than max_length tokens; a mask or segments of another shape.
          TypeError: tokens of a floating type, a mask that is not boolean.
        """
        self._check(x, mask, segments)
        first = out is None and self.mlm is None and current_lowering() != "reference"
        out = {} if out is None else out
        out["embeddings"] = y = self._embed(x, segments, rngs)
        out["tokens"] = y = self._encode(y, mask, rngs, out, first)
        if self.mlm is not None:
            out["logits"] = logits = self.mlm(y, self.embeddings.tokens)
            return logits
        out["features"] = y = self._pool(y[:, 0])
        if self.classifier is None:
            return y
        out["logits"] = logits = self._classify(y, rngs)
        return logits

    def _embed(self, x: jax.Array, segments: Any, rngs: Any) -> jax.Array:
        return self.embeddings(x, segments, rngs=rngs)

    def _encode(
        self, x: jax.Array, mask: Any, rngs: Any, out: dict[str, jax.Array], first: bool
    ) -> jax.Array:
        """All tokens; where `first`, later ones may be left out."""
        for index, block in enumerate(self.blocks):
            last = first and index == len(self.blocks) - 1 and isinstance(block, PostNormBlock)
            with jax.named_scope(f"blocks/{index}"):
                short = {"first": True} if last else {}
                out[f"blocks/{index}"] = x = block(x, mask=mask, rngs=rngs, **short)
        return x

    def _pool(self, first: jax.Array) -> jax.Array:
        """(b, d) of the first token -> features."""
        return jnp.tanh(self.pooler(first))

    def _classify(self, features: jax.Array, rngs: Any) -> jax.Array:
        return self.classifier(drop(self.dropout, features, rngs))

    def _check(self, x: jax.Array, mask: Any, segments: Any) -> None:
        name, longest = type(self).__name__, self.config.max_length
        if x.ndim != 2 or not 1 <= x.shape[1] <= longest:
            raise ValueError(
                f"This {name} expects tokens of shape (batch, n) with n from 1 to {longest}. "
                f"Got {x.shape}. Cut them, or pass max_length=... to create."
            )
        for label, given in (("a mask", mask), ("segments", segments)):
            if given is not None and given.shape != x.shape:
                raise ValueError(
                    f"This {name} expects {label} of the tokens' shape {x.shape}. "
                    f"Got {given.shape}."
                )
        if segments is not None and self.embeddings.segments is None:
            raise ValueError(f"{name} knows no segments. Got some: leave them out.")
