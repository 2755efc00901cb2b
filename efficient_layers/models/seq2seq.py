# SPDX-License-Identifier: Apache-2.0
"""Sequence to sequence by LSTMs or GRUs with attention: the baseline of transformers.

References: Luong, Pham and Manning, *Effective Approaches to Attention-based Neural Machine
Translation* (arXiv 1508.04025), sections 3.1 (global attention) and 3 (score "general"); Sutskever,
Vinyals and Le, *Sequence to Sequence Learning with Neural Networks* (arXiv 1409.3215).

Differs from Luong et al.: no input feeding (section 3.3), so that all positions of a target are
trained at once; the decoder starts from tanh of a linear map of the encoder's last outputs, as in
Bahdanau et al. (arXiv 1409.0473, appendix A.2.2), so that padding is not seen; torch's
initialisation of the recurrent layers.
"""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from efficient_layers.layers import GRU, LSTM, Embedding, List
from efficient_layers.layers.dropout import drop
from efficient_layers.models.family import Family
from efficient_layers.models.fields import nearest
from efficient_layers.models.initialise import draw_weights, placeholder

CELLS: dict[str, type[LSTM] | type[GRU]] = {"lstm": LSTM, "gru": GRU}


@dataclasses.dataclass(frozen=True)
class Seq2SeqConfig:
    """What makes one pair of encoder and decoder.

    Attributes:
      vocabulary: tokens of targets; source_vocabulary: of sources.
      features: width of embeddings and of all recurrent layers.
      depth: recurrent layers of the encoder, and of the decoder.
      dropout_rate: of the inputs of recurrent layers and of the attentional features.
      cell: "lstm" or "gru".
    """

    vocabulary: int = 256
    source_vocabulary: int = 256
    features: int = 256
    depth: int = 2
    dropout_rate: float = 0.2
    cell: str = "lstm"

    def __post_init__(self) -> None:
        sizes = (self.vocabulary, self.source_vocabulary, self.features, self.depth)
        if min(sizes) < 1 or not 0 <= self.dropout_rate < 1:
            raise ValueError(
                f"seq2seq expects sizes of at least 1 and 0 <= dropout_rate < 1. Got {self}."
            )
        if self.cell not in CELLS:
            raise ValueError(f"seq2seq has no cell {self.cell!r}. {nearest(self.cell, CELLS)}")


@partial(jax.tree_util.register_dataclass, data_fields=["source", "mask", "states"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Memory:
    """What the decoder knows: the encoder's outputs, which of them are tokens, its own states."""

    source: Float[Array, "b n d"]
    mask: Bool[Array, "b n"] | None
    states: tuple[Any, ...]


class Seq2Seq(nnx.Module):
    """Embeddings, stacks of recurrent layers, Luong's attention over the source, logits."""

    def __init__(self, config: Seq2SeqConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        cell, d, same = CELLS[config.cell], config.features, placeholder(rngs)
        self.source_embedding = Embedding(config.source_vocabulary, d, rngs=rngs)
        self.embedding = Embedding(config.vocabulary, d, rngs=rngs)
        self.encoder = List([cell(d, d, rngs=rngs) for _ in range(config.depth)])
        self.decoder = List([cell(d, d, rngs=rngs) for _ in range(config.depth)])
        parts = len(jax.tree.leaves(self.decoder[0].init_state(1)))  # h, or h and c
        self.bridges = List([nnx.Linear(d, parts * d, rngs=same) for _ in range(config.depth)])
        self.score = nnx.Linear(d, d, use_bias=False, rngs=same)
        self.combine = nnx.Linear(2 * d, d, use_bias=False, rngs=same)
        self.head = nnx.Linear(d, config.vocabulary, rngs=same)
        self.dropout = nnx.Dropout(config.dropout_rate)
        draw_weights(self, _fan_in, rngs=rngs)

    def __call__(
        self,
        x: Int[Array, "b n"],
        target: Int[Array, "b m"],
        *,
        mask: Bool[Array, "b n"] | None = None,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> Float[Array, "b m v"]:
        """Logits of the token after each of `target`, which begins with a token of its own.

        Args:
          x: the source.
          mask: of the source, whose padding is at its end. True: a token, False: padding.
          rngs: key of the dropouts; needed in train mode where `dropout_rate` > 0.
          out: filled with "source", "attention", "features" and "logits".

        Raises:
          ValueError: tokens outside a vocabulary, where known; shapes that do not fit.
        """
        out = {} if out is None else out
        memory = self.encode(x, mask, rngs=rngs)
        out["source"] = memory.source
        return self.decode(target, memory, rngs=rngs, out=out)[0]

    def encode(
        self,
        x: Int[Array, "b n"],
        mask: Bool[Array, "b n"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Memory:
        """What `decode` starts from."""
        if x.ndim != 2 or not x.size or (mask is not None and mask.shape != x.shape):
            raise ValueError(
                "seq2seq expects sources of shape (batch, n >= 1) and a mask of that shape. "
                f"Got {x.shape} and {None if mask is None else mask.shape}."
            )
        last = None if mask is None else jnp.maximum(mask.sum(axis=1) - 1, 0)[:, None, None]
        y, states = self.source_embedding(x), []
        for layer, bridge, like in zip(self.encoder, self.bridges, self.decoder, strict=True):
            y = layer(drop(self.dropout, y, rngs))
            end = y[:, -1] if last is None else jnp.take_along_axis(y, last, axis=1)[:, 0]
            empty = like.init_state(len(x))
            leaves, tree = jax.tree.flatten(empty)
            parts = jnp.split(jnp.tanh(bridge(end)), len(leaves), axis=-1)
            typed = [p.astype(leaf.dtype) for p, leaf in zip(parts, leaves, strict=True)]
            states.append(jax.tree.unflatten(tree, typed))
        return Memory(y, mask, tuple(states))

    def decode(
        self,
        x: Int[Array, "b m"],
        memory: Memory,
        *,
        last: bool = False,
        rngs: nnx.Rngs | None = None,
        out: dict[str, jax.Array] | None = None,
    ) -> tuple[Float[Array, "b m v"], Memory]:
        """Logits after each of the next m target tokens, or after the `last` alone; the memory."""
        out = {} if out is None else out
        y, states = self.embedding(x), []
        for layer, state in zip(self.decoder, memory.states, strict=True):
            y, state = layer.decode(drop(self.dropout, y, rngs), state)
            states.append(state)
        y = y[:, -1:] if last else y
        context, out["attention"] = self._attend(y, memory)
        y = jnp.tanh(self.combine(jnp.concatenate([context, y], axis=-1)))
        out["features"] = y = drop(self.dropout, y, rngs)
        out["logits"] = logits = self.head(y)
        return logits, dataclasses.replace(memory, states=tuple(states))

    def _attend(
        self, y: Float[Array, "b m d"], memory: Memory
    ) -> tuple[Float[Array, "b m d"], Float[Array, "b m n"]]:
        """softmax(y W_a source') source, and its weights."""
        scores = jnp.einsum("bmd,bnd->bmn", self.score(y), memory.source)
        if memory.mask is not None:
            scores = jnp.where(memory.mask[:, None], scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores, axis=-1)
        return jnp.einsum("bmn,bnd->bmd", weights, memory.source), weights


def _fan_in(layer: nnx.Conv | nnx.Linear) -> float:
    """Keeps the variance (LeCun)."""
    return 1 / math.sqrt(layer.kernel[...].shape[0])


FAMILY = Family("seq2seq", Seq2SeqConfig, Seq2Seq)
