# SPDX-License-Identifier: Apache-2.0
"""Objectives on tokens: the next one, or the hidden ones.

A batch has `"tokens"` [b, n] (integers) and, where rows are padded, `"token_mask"` [b, n] (1: a
token, 0: padding). A model whose `__call__` names `mask` is given it as booleans.
"""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from efficient_layers.learn.supervised import Batch, Metrics, Objective, call, inputs, masked_mean

Tokens = Int[Array, "b n"]
Weights = Float[Array, "b n"]


def language_modelling() -> Objective:
    """Cross-entropy of each token given those before it.

    Logits [b, n, v] at position i are scored against token i + 1; the last position has no target.
    A batch with targets of its own, `"target"` [b, n] with -100 for none (MQAR), is scored by
    those, position by position. With m = 1 where there is a target that is no padding:

        loss = sum_bi m_bi (-log softmax(logits_bi)[target_bi]) / sum_bi m_bi

    Metrics: `loss`, nats a token; `bits_per_byte` = loss / ln 2, which is bits a token where tokens
    are no bytes; `perplexity` = exp(loss), averaged over batches; `accuracy` of the likeliest one.

    Raises:
      ValueError: when called, logits that are not [b, n, v].
    """

    def objective(model: Any, batch: Batch, rngs: nnx.Rngs | None) -> tuple[Array, Metrics]:
        tokens, counted = batch["tokens"], _counted(batch)
        logits = call(model, tokens, rngs=rngs, mask=inputs(batch)[1])
        if "target" in batch:
            target = batch["target"]
            return _scores(logits, jnp.maximum(target, 0), counted * (target >= 0))
        # Rolled, not cut: the logits stay whole, and the last position counts nothing.
        target = jnp.roll(tokens, -1, axis=1)
        return _scores(logits, target, jnp.roll(counted, -1, axis=1).at[:, -1].set(0))

    return objective


def masked_language_modelling(
    *,
    mask_rate: float = 0.15,
    mask_token: int = 257,
    special_tokens: Collection[int] = (256, 257, 258),
    vocabulary: int = 256,
) -> Objective:
    """Cross-entropy of hidden tokens given the others.

    Each token is chosen with probability `mask_rate`, but for padding and `special_tokens`. Of the
    chosen, 80 % become `mask_token`, 10 % a token drawn from 0..`vocabulary` - 1, 10 % stay; the
    loss is the mean over the chosen. Evaluation hides the same positions every time. The defaults
    are those of `el.data`'s byte tokenizer. Metrics as `language_modelling`.

    Reference: Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding, 2018 (arXiv 1810.04805), section 3.1. Differs: tokens are hidden anew each time
    they are seen (as in RoBERTa, arXiv 1907.11692, section 4.1), with no upper limit a row.

    Raises:
      ValueError: a rate outside (0, 1]; when called, logits that are not [b, n, v].
    """
    if not 0 < mask_rate <= 1:
        raise ValueError(f"mask_rate must be in (0, 1]. Got {mask_rate}.")
    special = tuple(special_tokens)

    def objective(model: Any, batch: Batch, rngs: nnx.Rngs | None) -> tuple[Array, Metrics]:
        key = jax.random.key(0) if rngs is None else rngs.masking()
        tokens = batch["tokens"]
        free = ~jnp.isin(tokens, jnp.asarray(special, tokens.dtype)) & (_counted(batch) > 0)
        hidden, chosen = hide(
            key, tokens, free, rate=mask_rate, mask_token=mask_token, vocabulary=vocabulary
        )
        logits = call(model, hidden, rngs=rngs, mask=inputs(batch)[1])
        return _scores(logits, tokens, chosen)

    return objective


def hide(
    key: Array, tokens: Tokens, free: Array, *, rate: float, mask_token: int, vocabulary: int
) -> tuple[Tokens, Weights]:
    """(tokens with some hidden, 1.0 where one was chosen); see `masked_language_modelling`."""
    choose, fate, draw = jax.random.split(key, 3)
    chosen = free & (jax.random.uniform(choose, tokens.shape) < rate)
    luck = jax.random.uniform(fate, tokens.shape)
    other = jax.random.randint(draw, tokens.shape, 0, vocabulary, tokens.dtype)
    instead = jnp.where(luck < 0.8, mask_token, jnp.where(luck < 0.9, other, tokens))
    return jnp.where(chosen, instead, tokens), chosen.astype(jnp.float32)


def _counted(batch: Batch) -> Weights:
    """1.0 for tokens that count: no padding, in rows whose mask is 1."""
    counted = batch.get("token_mask", jnp.ones(batch["tokens"].shape))
    return counted * batch["mask"][:, None] if "mask" in batch else counted


def _scores(logits: Array, target: Tokens, counted: Weights) -> tuple[Array, Metrics]:
    """Mean loss over what counts, and the metrics."""
    if logits.ndim != 3 or logits.shape[:2] != target.shape:
        raise ValueError(
            f"tokens {list(target.shape)} need logits {[*target.shape, 'vocabulary']}. Got "
            f"{list(logits.shape)}: a model of language, with no pooling and no classes?"
        )
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, target[..., None], -1, mode="fill")[..., 0]
    loss = masked_mean(jax.nn.logsumexp(logits, axis=-1) - picked, counted)
    right = (jnp.argmax(logits, axis=-1) == target).astype(jnp.float32)
    return loss, {
        "loss": loss,
        "bits_per_byte": loss / jnp.log(2.0),
        "perplexity": jnp.exp(loss),
        "accuracy": masked_mean(right, counted),
    }
