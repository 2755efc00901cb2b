# SPDX-License-Identifier: Apache-2.0
"""Softmax attention block by block: n x m numbers are never stored, in no pass.

Letters as in `attention_terms`. A block is some (b, g) pairs and some of their queries, against all
keys. Kept for the gradient are the output y and L = log sum exp of each query's scores. With them a
block's weights are P = exp(S - L), in one pass, and its derivative is linear in that of S:

    t = rowsum(P dS)    dL = t    dy = P dv + (P dS) v - t y

Transposed by JAX, block by block under `jax.checkpoint`, this is the backward pass of
FlashAttention-2 (Dao, arXiv 2307.08691, section 3.1.2): five products a block. Since it is a rule
for the derivative, not for its transpose, forward mode and higher derivatives work.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from efficient_layers.ops.attention_terms import (
    Added,
    Fixed,
    Rule,
    add,
    kept,
    largest_divisor,
    scores,
)
from efficient_layers.ops.attention_whole import attend_few, few_keys

# Numbers in a block of scores: 4 MB, where the products run at 0.9 of their best speed and what
# lies between them stays in the last cache.
BLOCK = 2**20
PAIRS = 2**18
LEAST_ROWS = 128


class Rows(NamedTuple):
    """What a query has: axes (b, g, r, n, *)."""

    q: jax.Array
    y: jax.Array | None = None
    log_sum: jax.Array | None = None
    dq: jax.Array | None = None


class Keys(NamedTuple):
    """What a key has: axes (b, g, m, *); the derivatives' last two swapped.

    A block adds q^T dS to the gradient of `dk`, the larger matrix untransposed: 124 ms where
    dS^T q takes 222 (a backward pass of 2 heads, 4,096 keys).
    """

    k: jax.Array
    v: jax.Array
    dk: jax.Array | None = None
    dv: jax.Array | None = None


class Terms(NamedTuple):
    """Axes (b, g, r, n, m), each whole or 1."""

    added: Added
    fixed: Fixed
    d_added: Added = Added()


def attend(
    q: Float[Array, "b g r n d"],
    k: Float[Array, "b g m d"],
    v: Float[Array, "b g m e"],
    added: Added,
    fixed: Fixed,
    rule: Rule,
) -> Float[Array, "b g r n e"]:
    """softmax(q k^T + added) v in the dtype of q, float32 or wider."""
    if q.size and few_keys(k, added, rule):
        return attend_few(q, k, v, fixed, rule)
    return _attend(rule, q, k, v, added, fixed)[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attend(rule, q, k, v, added, fixed):
    """(y, L)."""
    block = partial(_forward, rule)
    return _over_blocks(block, Rows(q), Keys(k, v), Terms(added, fixed))


def _forward(rule: Rule, rows: Rows, keys: Keys, terms: Terms):
    s = _scores(rule, rows, keys, terms)
    top = lax.stop_gradient(s.max(-1, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0)
    p = jnp.exp(s - top)
    total = p.sum(-1, keepdims=True)
    empty = total == 0
    total = jnp.where(empty, 1, total)
    if rule.rate:
        p = p * kept(terms.fixed, rule, p.dtype)
    log_sum = jnp.where(empty, 0, top + jnp.log(total))
    return _product("qm,me->qe", p, keys.v) / total, log_sum


@partial(_attend.defjvp, symbolic_zeros=True)
def _attend_jvp(rule, primals, tangents):
    q, k, v, added, fixed = primals
    dq, dk, dv, d_added, _ = jax.tree.map(
        _none_if_zero, tangents, is_leaf=lambda x: isinstance(x, SymbolicZero)
    )
    y, log_sum = _attend(rule, q, k, v, added, fixed)
    rows, keys = Rows(q, y, log_sum, dq), Keys(k, v, _swapped(dk), _swapped(dv))
    block = jax.checkpoint(partial(_derivative, rule), prevent_cse=False)
    dy, d_log_sum = _over_blocks(block, rows, keys, Terms(added, fixed, d_added))
    return (y, log_sum), (dy, d_log_sum)


def _none_if_zero(x):
    return None if isinstance(x, SymbolicZero) else x


def _swapped(x):
    return None if x is None else jnp.swapaxes(x, -1, -2)


def _derivative(rule: Rule, rows: Rows, keys: Keys, terms: Terms):
    """(dy, dL) of a block, linear in every d."""
    p = jnp.exp(_scores(rule, rows, keys, terms) - rows.log_sum)
    w = p * kept(terms.fixed, rule, p.dtype) if rule.rate else p
    ds = _d_scores(p, rows, keys, terms)
    t = (p * ds).sum(-1, keepdims=True)
    dy = _product("qm,me->qe", w * ds, keys.v) - t * rows.y
    if keys.dv is not None:
        dy = dy + _product("qm,em->qe", w, keys.dv)
    return dy, t


def _scores(rule: Rule, rows: Rows, keys: Keys, terms: Terms):
    return scores(_product("qd,md->qm", rows.q, keys.k), terms.added, terms.fixed, rule)


def _d_scores(p, rows: Rows, keys: Keys, terms: Terms):
    ds = jnp.zeros_like(p)
    if rows.dq is not None:
        ds = ds + _product("qd,md->qm", rows.dq, keys.k)
    if keys.dk is not None:
        ds = ds + _product("qd,dm->qm", rows.q, keys.dk)
    return add(ds, terms.d_added, terms.fixed)


def _product(spec: str, rows, keys):
    """A matrix product of (b, g, r, n, *) with (b, g, *, *), r and n as one axis q."""
    *pairs, r, n, size = rows.shape
    left, right, out = spec.replace(",", "->").split("->")
    flat = rows.reshape(*pairs, r * n, size)
    if pairs == [1, 1]:  # plain: XLA turns (dS^T q)^T into q^T dS, and transposes no keys
        product = jnp.einsum(spec, flat[0, 0], keys[0, 0])
    else:
        product = jnp.einsum(f"bg{left},bg{right}->bg{out}", flat, keys)
    return product.reshape(*pairs, r, n, product.shape[-1])


def _over_blocks(block: Callable, rows: Rows, keys: Keys, terms: Terms) -> Any:
    """`block` of all blocks, its results put together; shapes (b, g, r, n, *)."""
    (b, g, r, n, _), m = rows.q.shape, keys.k.shape[2]
    size = max(1, PAIRS // max(1, r * n * m))  # (b, g) pairs a block
    groups = largest_divisor(g, size)
    batches = largest_divisor(b, size // g) if groups == g else 1
    count = -(-n // max(LEAST_ROWS // r, BLOCK // max(1, r * m), 1))

    def some_rows(rows, keys, terms):
        return _map(lambda x: block(x[0], keys, x[1]), (rows, terms), 3, -(-n // count))

    def some_groups(x):
        return _map(lambda x: some_rows(*x), x, 1, groups)

    return _map(some_groups, (rows, keys, terms), 0, batches)


def _map(f: Callable, x: Any, axis: int, size: int) -> Any:
    """f of `size` places along an axis at a time, one after the other; a leaf of 1 is for all.

    The last ones are filled up with zeros, and cut off from the results.
    """
    whole = max((leaf.shape[axis] for leaf in jax.tree.leaves(x)), default=0)
    steps = -(-whole // max(size, 1))
    if steps <= 1:
        return f(x)
    structure: Any
    leaves, structure = jax.tree.flatten(x)
    split = {i: leaf for i, leaf in enumerate(leaves) if leaf.shape[axis] > 1}

    def step(parts):
        return f(structure.unflatten([parts.get(i, leaf) for i, leaf in enumerate(leaves)]))

    parts = {i: _parts(leaf, axis, steps, size) for i, leaf in split.items()}
    return jax.tree.map(partial(_joined, axis=axis, whole=whole), lax.map(step, parts))


def _parts(x, axis: int, steps: int, size: int):
    """(steps, ..., size, ...)."""
    missing = steps * size - x.shape[axis]
    if missing:
        x = jnp.pad(x, [(0, missing if a == axis else 0) for a in range(x.ndim)])
    x = x.reshape(*x.shape[:axis], steps, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def _joined(x, axis: int, whole: int):
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return lax.slice_in_dim(x, 0, whole, axis=axis)
