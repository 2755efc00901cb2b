# SPDX-License-Identifier: Apache-2.0
"""What the families of causal language models share: tokens to logits, whole or token by token."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Bool, Float, Int

from efficient_layers.layers.dropout import drop
from efficient_layers.models.mixer import empty_state, mix


@partial(jax.tree_util.register_dataclass, data_fields=["blocks", "length"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Cache:
    """What each block remembers of the `length` tokens so far."""

    blocks: tuple[Any, ...]
    length: Int[Array, ""]


class Mlp(nnx.Module):
    """y = down(gelu(up(x))), with the tanh form of gelu."""

    def __init__(self, features: int, hidden_features: int, *, rngs: nnx.Rngs) -> None:
        self.up = nnx.Linear(features, hidden_features, rngs=rngs)
        self.down = nnx.Linear(hidden_features, features, rngs=rngs)

    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b d"]:
        """Rows to rows."""
        return self.down(jax.nn.gelu(self.up(x), approximate=True))


class Block(nnx.Module):
    """x + attention(norm_1(x)), then the same with mlp(norm_2(x)); without an mlp the first alone.

    Reference: pre-norm residuals, Radford et al., *Language Models are Unsupervised Multitask
    Learners* (GPT-2), 2019, section 2.3.
    """

    def __init__(
        self, norm_1: Any, attention: Any, norm_2: Any, mlp: Any, dropout_rate: float
    ) -> None:
        self.norm_1, self.attention = norm_1, attention
        self.norm_2, self.mlp = nnx.data(norm_2), nnx.data(mlp)
        self.dropout = nnx.Dropout(dropout_rate)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        *,
        mask: Bool[Array, "b n"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b n d"]:
        """All positions at once; `mask` (True: a token) is for mixers that know one."""
        y = mix(self.attention, self.norm_1(x), mask=mask, rngs=rngs)
        return self._with_mlp(x + drop(self.dropout, y, rngs), rngs)

    def decode(self, x: Float[Array, "b n d"], state: Any) -> tuple[Float[Array, "b n d"], Any]:
        """The next positions, and what is remembered after them; as in eval mode."""
        y, state = self.attention.decode(self.norm_1(x), state)
        return self._with_mlp(x + y, None), state

    def _with_mlp(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        if self.mlp is None:
            return x
        rows = self.norm_2(x).reshape(-1, x.shape[-1])  # one matrix: the fast form of its gradient
        return x + drop(self.dropout, self.mlp(rows).reshape(x.shape), rngs)


class CausalLM(nnx.Module):
    """Embedding (with learned positions or without), blocks, a last norm, logits.

    A family's constructor sets `config` (with `vocabulary` and `max_length`), `embedding`,
    `positions` (or None), `dropout`, `blocks`, `norm`, and `head`: a linear layer, or None where
    the logits come of the embedding's own table.
    """

    config: Any
    embedding: Any
    positions: Any
    dropout: nnx.Dropout
    blocks: Any
    norm: Any
    head: Any

    def __call__(
        self,
        x: Int[Array, "b n"],
        *,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b n v"]:
        """Logits of the token after each position.

        Args:
          rngs: key of the dropouts; needed in train mode where `dropout_rate` > 0.
          out: filled with "embedding", "blocks/0", ..., "features" and "logits".

        Raises:
          ValueError: tokens outside the vocabulary, where known; more than max_length of them.
        """
        self._check(x)
        out = {} if out is None else out
        out["embedding"] = x = drop(self.dropout, self._embed(x, 0), rngs)
        for index, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks/{index}"):
                out[f"blocks/{index}"] = x = block(x, rngs=rngs)
        out["features"] = x = self.norm(x)
        out["logits"] = x = self._logits(x)
        return x

    def init_cache(
        self, batch: int, max_length: int, *, dtype: Dtype | None = None, piece: int = 1
    ) -> Cache:
        """An empty cache for `decode`, of `max_length` tokens.

        Args:
          dtype: of keys and values: float32, bfloat16, or int8 with scales.
          piece: how many tokens a call of `decode` brings at most (layers with a window only).

        Raises:
          ValueError: more tokens than the model has positions; a layer that does not decode.
        """
        self._check_length(max_length)
        states = (
            empty_state(
                getattr(block, "attention", block), batch, max_length, dtype=dtype, piece=piece
            )  # a block that was removed is an Identity, and decodes itself
            for block in self.blocks
        )
        return Cache(tuple(states), jnp.zeros((), jnp.int32))

    def decode(
        self, x: Int[Array, "b n"], cache: Cache, *, last: bool = False
    ) -> tuple[Float[Array, "b n v"], Cache]:
        """Logits after each of the next n tokens, or after the `last` alone, and the cache.

        The same numbers as the rows of a call on all tokens so far, in eval mode, to rounding.
        """
        self._check(x)
        y, states = self._embed(x, cache.length), []
        for index, (block, state) in enumerate(zip(self.blocks, cache.blocks, strict=True)):
            with jax.named_scope(f"blocks/{index}"):
                y, state = block.decode(y, state)
                states.append(state)
        y = self._logits(self.norm(y[:, -1:] if last else y))
        return y, Cache(tuple(states), cache.length + x.shape[1])

    def _embed(self, x: jax.Array, start: Any) -> jax.Array:
        y = self.embedding(x)
        if self.positions is None:
            return y
        return y + self.positions(start + jnp.arange(x.shape[1], dtype=jnp.int32))

    def _logits(self, x: jax.Array) -> jax.Array:
        rows = x.reshape(-1, x.shape[-1])
        y = self.embedding.attend(rows) if self.head is None else self.head(rows)
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def _check(self, x: jax.Array) -> None:
        if x.ndim != 2:
            raise ValueError(
                f"{type(self).__name__} expects tokens of shape (batch, positions). Got {x.shape}."
            )
        self._check_length(x.shape[1])

    def _check_length(self, length: int) -> None:
        if length > self.config.max_length:
            raise ValueError(
                f"{type(self).__name__} expects at most max_length={self.config.max_length} "
                f"tokens. Got {length}. Cut the sequence, or create the model with a larger "
                "max_length."
            )
