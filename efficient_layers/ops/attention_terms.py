# SPDX-License-Identifier: Apache-2.0
"""What softmax attention adds to the scores, what it hides, what it drops; and the plain form.

Letters, heads first: b batch, g key heads, r query heads a key head, n queries, m keys, d and e
features of keys and values. Every array here has the axes (*b, g, r, n, m), each of its size or 1,
so that a block of the scores is a slice of whatever is not 1. Nothing is of size n m unless the
caller gave it so.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from efficient_layers.ops.precision import float32_or_wider


class Rule(NamedTuple):
    """What is the same for every query: seen are the keys `left` before to `right` after it.

    None is without limit. Of the weights, the share `rate` is dropped.
    """

    left: int | None = None
    right: int | None = None
    rate: float = 0.0


class Added(NamedTuple):
    """Summands of the scores, differentiable: `bias`, and -`slopes` |i - j|; None: not given."""

    bias: Any = None
    slopes: Any = None


class Fixed(NamedTuple):
    """What is not differentiated. Positions are absent where no rule or slope asks for them.

    `query_words` (two, uint32) and `key_words` are random numbers for the dropped weights.
    """

    mask: Any = None
    query_segments: Any = None
    key_segments: Any = None
    query_position: Any = None
    key_position: Any = None
    query_words: Any = None
    key_words: Any = None


def scores(
    s: Float[Array, "*b g r n m"], added: Added, fixed: Fixed, rule: Rule
) -> Float[Array, "*b g r n m"]:
    """s = q k^T and what is added; -inf where a key is not seen."""
    s = add(s, added, fixed)
    visible = seen(fixed, rule)
    return s if visible is None else jnp.where(visible, s, -jnp.inf)


def add(s: Float[Array, "*b g r n m"], added: Added, fixed: Fixed) -> Float[Array, "*b g r n m"]:
    """s + bias - slopes |i - j|: linear in `added`, hence its own derivative."""
    if added.bias is not None:
        s = s + added.bias.astype(s.dtype)
    if added.slopes is not None:
        distance = jnp.abs(fixed.query_position - fixed.key_position).astype(s.dtype)
        s = s - added.slopes.astype(s.dtype) * distance
    return s


def seen(fixed: Fixed, rule: Rule) -> Bool[Array, "*b g r n m"] | None:
    """True where a query sees a key; None if every query sees every key."""
    parts = [] if fixed.mask is None else [fixed.mask]
    if fixed.query_segments is not None:
        parts.append(fixed.query_segments == fixed.key_segments)
    if rule.right is not None:
        parts.append(fixed.key_position <= fixed.query_position + rule.right)
    if rule.left is not None:
        parts.append(fixed.key_position >= fixed.query_position - rule.left)
    if not parts:
        return None
    visible = parts[0]
    for part in parts[1:]:
        visible = visible & part
    return visible


def kept(fixed: Fixed, rule: Rule, dtype) -> Float[Array, "*b g r n m"]:
    """1 / (1 - rate) where a weight is kept, else 0: a hash of two words a query and one a key.

    An element's fate depends on its place alone, not on the block in which it is computed, and
    costs two products of integers. Each query has its own affine map of the keys' words, so rows
    are not shifts of one another; the mixing steps are murmur3's.
    """
    factor, offset = fixed.query_words
    x = fixed.key_words * (factor | jnp.uint32(1)) + offset
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    x = x ^ (x >> 16)
    limit = min(int(rule.rate * 2**32), 2**32 - 1)
    return jnp.where(x >= jnp.uint32(limit), 1 / (1 - rule.rate), 0).astype(dtype)


def softmax_attention(
    q: Float[Array, "*b g r n d"],
    k: Float[Array, "*b g m d"],
    v: Float[Array, "*b g m e"],
    added: Added,
    fixed: Fixed,
    rule: Rule,
) -> Float[Array, "*b g r n e"]:
    """The whole matrix of weights, stored: the reference, with no branch on sizes.

    A row that sees nothing has weights 0. The result is in float32 or wider.
    """
    wide = float32_or_wider(q.dtype)
    s = jnp.einsum("...rnd,...md->...rnm", q, k, preferred_element_type=wide)
    s = scores(s, added, fixed, rule)
    top = jax.lax.stop_gradient(s.max(-1, keepdims=True, initial=-jnp.inf))
    p = jnp.exp(s - jnp.where(jnp.isfinite(top), top, 0))
    total = p.sum(-1, keepdims=True)
    p = p / jnp.where(total == 0, 1, total)
    if rule.rate:
        p = p * kept(fixed, rule, p.dtype)
    return jnp.einsum("...rnm,...me->...rne", p, v.astype(p.dtype))


def largest_divisor(n: int, limit: int) -> int:
    """Of n, up to `limit`, at least 1: so many heads a block."""
    return next((d for d in range(min(n, limit), 1, -1) if n % d == 0), 1)
