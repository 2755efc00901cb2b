# SPDX-License-Identifier: Apache-2.0
"""Softmax attention over few keys, in a form that XLA's CPU backend makes one loop of.

Three axes, no guard between the two products, what is hidden added as a number: then products,
maximum, exponential and sum are one fusion, no n m numbers are stored, and 256 keys take half the
time of blocks (16 x 256 x 8 heads of 64, 2 cores: 16 ms for 40; a `where` on the scores, an
`isfinite`, or five axes bring 37 to 62). From 320 keys on blocks are as fast.

Letters: c (b, g) pairs, q queries of all heads that share the keys, m keys, d and e features.
"""

from math import prod

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.attention_terms import Added, Fixed, Rule, largest_divisor, seen

MOST_KEYS = 256
PAIRS = 2**20  # numbers in the scores of the pairs whose derivative is taken at a time


def few_keys(k: Float[Array, "b g m d"], added: Added, rule: Rule) -> bool:
    """Whether `attend_few` computes this: nothing dropped, nothing added, up to `MOST_KEYS`."""
    return added == Added() and not rule.rate and 0 < k.shape[2] <= MOST_KEYS


def attend_few(
    q: Float[Array, "b g r n d"],
    k: Float[Array, "b g m d"],
    v: Float[Array, "b g m e"],
    fixed: Fixed,
    rule: Rule,
) -> Float[Array, "b g r n e"]:
    """softmax(q k^T) v; zeros for a query that sees no key."""
    b, g, r, n, _ = q.shape
    visible = seen(fixed, rule)
    hidden = jnp.zeros((1, 1, 1), q.dtype)
    if visible is not None:
        hidden = _pairs(jnp.where(visible, 0, jnp.finfo(q.dtype).min / 2), (b, g, r, n))
    q = q.reshape(b * g, r * n, q.shape[-1])
    y = _attend(q, *(x.reshape(b * g, *x.shape[2:]) for x in (k, v)), hidden.astype(q.dtype))
    y = y.reshape(b, g, r, n, -1)
    return y if visible is None else jnp.where(visible.any(-1, keepdims=True), y, 0)


@jax.custom_jvp
def _attend(
    q: Float[Array, "c q d"],
    k: Float[Array, "c m d"],
    v: Float[Array, "c m e"],
    hidden: Float[Array, "c q m"],
) -> Float[Array, "c q e"]:
    s = _scores(q, k, hidden)
    p = jnp.exp(s - s.max(-1, keepdims=True))
    return jnp.einsum("cqm,cme->cqe", p, v) / p.sum(-1, keepdims=True)


def _scores(q, k, hidden):
    return jnp.einsum("cqd,cmd->cqm", q, k) + hidden


@_attend.defjvp
def _attend_jvp(primals, tangents):
    """dy = P dv + (P dS) v - rowsum(P dS) y, some pairs at a time, P computed anew when transposed.

    Its transpose is the backward pass of FlashAttention-2 (Dao, arXiv 2307.08691, section 3.1.2).
    """
    q, k, v, hidden = primals
    y = _attend(*primals)
    size = largest_divisor(len(q), PAIRS // max(1, q.shape[1] * k.shape[1]))
    step = jax.checkpoint(_derivative, prevent_cse=False)
    whole = {"q": q, "k": k, "v": v, "y": y}
    whole |= {"dq": tangents[0], "dk": tangents[1], "dv": tangents[2]}
    if len(hidden) > 1:
        whole["hidden"] = hidden
        hidden = None
    parts = {name: x.reshape(-1, size, *x.shape[1:]) for name, x in whole.items()}
    dy = lax.map(lambda x: step(**({"hidden": hidden} | x)), parts)
    return y, dy.reshape(y.shape)


def _derivative(q, k, v, y, dq, dk, dv, hidden):
    s = _scores(q, k, hidden)
    top = s.max(-1, keepdims=True)
    log_sum = top + jnp.log(jnp.exp(s - top).sum(-1, keepdims=True))
    p = jnp.exp(s - log_sum)
    ds = jnp.einsum("cqd,cmd->cqm", dq, k) + jnp.einsum("cqd,cmd->cqm", q, dk)
    t = (p * ds).sum(-1, keepdims=True)
    dy = jnp.einsum("cqm,cme->cqe", p * ds, v) + jnp.einsum("cqm,cme->cqe", p, dv)
    return dy - t * y


def _pairs(x, whole: tuple[int, int, int, int]):
    """(b, g, r, n, m), each of its size or 1 -> (b g or 1, r n or 1, m)."""
    b, g, r, n, m = x.shape
    heads = whole[:2] if b * g > 1 else (1, 1)
    rows = whole[2:] if r * n > 1 else (1, 1)
    x = jnp.broadcast_to(x, (*heads, *rows, m))
    return x.reshape(prod(heads), prod(rows), m)
