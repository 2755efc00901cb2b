# SPDX-License-Identifier: Apache-2.0
"""Attention over chosen blocks of keys: global, neighbouring and random ones (BigBird).

Letters: n = blocks x block tokens, g key heads, r query heads a key head, l blocks that a block of
queries sees.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from efficient_layers.ops.attention import dot_product_attention
from efficient_layers.ops.precision import float32_or_wider


@dataclass(frozen=True)
class BlockPattern:
    """Which blocks of keys a block of queries sees. The defaults are BigBird's base model.

    Attributes:
      block: tokens a block.
      first: how many blocks at the start are global: all tokens see them, and they see all.
      window: blocks around the own one, an odd number; with `causal` the (window + 1) / 2 up to it.
      random: further blocks, drawn once for each block of queries.
      seed: of that draw.
    """

    block: int = 64
    first: int = 2
    window: int = 3
    random: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.block < 1 or self.window < 1 or self.window % 2 == 0:
            raise ValueError(
                "BlockPattern expects a block of at least 1 and an odd window. "
                f"Got block={self.block}, window={self.window}."
            )
        if min(self.first, self.random) < 0:
            raise ValueError(
                f"BlockPattern expects first and random from 0 on. Got first={self.first}, "
                f"random={self.random}."
            )

    def width(self, *, causal: bool) -> int:
        """Blocks of keys for which a block of queries has room."""
        return self.first + (self.window // 2 + 1 if causal else self.window) + self.random

    def table(
        self, blocks: int, *, causal: bool
    ) -> tuple[Int[np.ndarray, "blocks l"], Bool[np.ndarray, "blocks l"]]:
        """Blocks of keys seen by each block of queries, and which entries count.

        Near the ends there are fewer than l; what is left over is block 0, not to be counted.
        """
        draw = np.random.default_rng(self.seed)
        table = np.zeros((blocks, self.width(causal=causal)), np.int32)
        valid = np.zeros(table.shape, bool)
        for i in range(blocks):
            after = 0 if causal else self.window // 2
            near = range(max(0, i - self.window // 2), min(blocks, i + after + 1))
            seen = dict.fromkeys([*range(min(self.first, i + 1 if causal else blocks)), *near])
            rest = [j for j in range(i if causal else blocks) if j not in seen]
            some = draw.permutation(rest)[: self.random].tolist()
            chosen = [*seen, *some]
            table[i, : len(chosen)] = chosen
            valid[i, : len(chosen)] = True
        return table, valid


def block_sparse_attention(
    query: Float[Array, "*b n h d"],
    key: Float[Array, "*b n g d"],
    value: Float[Array, "*b n g d"],
    pattern: BlockPattern,
    *,
    causal: bool = False,
    mask: Bool[Array, "*b n"] | None = None,
    slopes: Float[Array, " h"] | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> Float[Array, "*b n h d"]:
    """softmax(q k^T / sqrt(d) - slopes |i - j|) v over the blocks of `pattern`; time and memory are
    linear in n.

    The global blocks of queries see every key (no later one, if `causal`). `mask` hides keys; a
    query that sees none gets zeros.

    Raises:
      ValueError: n is no multiple of the block.

    Reference: Zaheer et al., *Big Bird: Transformers for Longer Sequences* (arXiv 2007.14062),
    section 2 and appendix D, "blockifying".
    """
    n, block = query.shape[-3], pattern.block
    if n % block:
        raise ValueError(
            f"Block-sparse attention expects a multiple of block={block} tokens. Got {n}: pad the "
            "sequence and hide the padding with a mask."
        )
    first = min(pattern.first * block, n)
    keys: Any = jax.random.split(dropout_key, 2) if dropout_key is not None else (None, None)
    parts = []
    if first:
        until = first if causal else n
        top = dot_product_attention(
            query[..., :first, :, :],
            key[..., :until, :, :],
            value[..., :until, :, :],
            causal=causal,
            mask=None if mask is None else mask[..., None, None, :until],
            slopes=slopes,
            dropout_rate=dropout_rate,
            dropout_key=keys[0],
        )
        parts.append(top)
    if first < n:
        chosen = tuple(part[pattern.first :] for part in pattern.table(n // block, causal=causal))
        p, v = _weights(query[..., first:, :, :], key, value, chosen, causal, mask, slopes)
        if dropout_rate:
            kept = jax.random.bernoulli(keys[1], 1 - dropout_rate, p.shape)
            p = jnp.where(kept, p / (1 - dropout_rate), 0)
        parts.append(_mean(p, v, block).astype(query.dtype))
    return jnp.concatenate(parts, -3)


def _mean(p, v, block):
    """(*b, g, s, r block, m) times (*b, g, s, m, d), as (*b, s block, h, d)."""
    y = jnp.einsum("...im,...md->...id", p.astype(v.dtype), v)
    *batch, g, blocks, rows, d = y.shape
    y = y.reshape(*batch, g, blocks, rows // block, block, d)
    y = jnp.moveaxis(y, (-5, -4, -3, -2), (-3, -5, -2, -4))  # *b s block g r d
    return y.reshape(*batch, blocks * block, g * (rows // block), d)


def _weights(query, key, value, chosen, causal, mask, slopes):
    """Probabilities (*b, g, s, r block, l block), and the values (*b, g, s, l block, d)."""
    table, valid = chosen
    (*batch, n, g, d), (blocks, width) = key.shape, table.shape
    block = query.shape[-3] // blocks
    first, r = n - blocks * block, query.shape[-2] // g
    q = query.reshape(*batch, blocks, block, g, r, d) * jnp.asarray(d**-0.5, query.dtype)
    q = jnp.moveaxis(q, (-3, -2), (-5, -3)).reshape(*batch, g, blocks, r * block, d)
    k, v = (_gathered(x, table, block) for x in (key, value))
    s = jnp.einsum(
        "...id,...md->...im", q, k, preferred_element_type=float32_or_wider(query.dtype)
    ).reshape(*batch, g, blocks, r, block, width * block)
    lead = (1,) * len(batch)
    query_at = first + np.arange(blocks * block).reshape(*lead, 1, blocks, 1, block, 1)
    key_at = (table[..., None] * block + np.arange(block)).reshape(blocks, 1, 1, width * block)
    key_at = key_at.reshape(*lead, 1, *key_at.shape)
    seen = jnp.asarray(np.repeat(valid, block, -1).reshape(key_at.shape))
    if causal:
        seen = seen & (jnp.asarray(key_at) <= jnp.asarray(query_at))
    if mask is not None:
        hidden = mask.reshape(*mask.shape[:-1], n // block, block)
        near = jnp.take(hidden, table.reshape(-1), axis=-2).reshape(
            *mask.shape[:-1], blocks, width * block
        )
        seen = seen & near[..., None, :, None, None, :]
    if slopes is not None:
        distance = jnp.abs(jnp.asarray(query_at) - jnp.asarray(key_at)).astype(s.dtype)
        s = s - slopes.astype(s.dtype).reshape(*lead, g, 1, r, 1, 1) * distance
    p = _softmax(jnp.where(seen, s, -jnp.inf))
    return p.reshape(*batch, g, blocks, r * block, width * block), v


def _gathered(x, table, block):
    """(*b, n, g, d) -> (*b, g, s, l block, d): whole blocks are copied, not single rows."""
    *batch, n, g, d = x.shape
    heads = jnp.moveaxis(x, -2, -3).reshape(*batch, g, n // block, block, d)
    chosen = jnp.take(heads, table.reshape(-1), axis=-3, mode="clip")
    return chosen.reshape(*batch, g, len(table), table.shape[1] * block, d)


def _softmax(s):
    """Zeros for a row of -inf alone."""
    top = jax.lax.stop_gradient(s.max(-1, keepdims=True))
    e = jnp.exp(s - jnp.where(jnp.isfinite(top), top, 0))
    total = e.sum(-1, keepdims=True)
    return e / jnp.where(total == 0, 1, total)
