# SPDX-License-Identifier: Apache-2.0
"""Only the keys that somebody sees: causal and windowed attention cut into smaller problems.

Known when traced are the rule and, unless it is an array, the position of the first query. Then

- a narrow window is cut into chunks of C queries, each with its own C + left + right keys: chunks
  become a batch axis, time and memory are linear in n;
- else a few strips of queries, each against the range of keys that its queries reach: causal work
  is (s + 1) / 2 s of the whole with s strips. They differ in shape, so each compiles on its own.

Axes as in `attention_blockwise`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.attention_blockwise import attend
from efficient_layers.ops.attention_terms import Added, Fixed, Rule

CHUNK = 256
STRIP = 512
MOST_STRIPS = 4
_NOWHERE = -(2**30)  # position of a key that is only filling


def attend_seen(
    q: Float[Array, "b g r n d"],
    k: Float[Array, "b g m d"],
    v: Float[Array, "b g m e"],
    added: Added,
    fixed: Fixed,
    rule: Rule,
    offset: int | None,
) -> Float[Array, "b g r n e"]:
    """`attend` without the blocks that no query sees; `offset` is None where not known."""
    n, m = q.shape[3], k.shape[2]
    if offset is None or n <= STRIP or (rule.left is None and rule.right is None):
        return attend(q, k, v, added, fixed, rule)
    if rule.left is not None and rule.right is not None:
        chunk = max(CHUNK, rule.left + rule.right)
        if chunk < n and 3 * chunk < m and not _stored(added.bias) and not _stored(fixed.mask):
            return _banded(q, k, v, added, fixed, rule, offset, chunk)
    return _strips(q, k, v, added, fixed, rule, offset)


def _stored(x) -> bool:
    """Whether the caller stores n x m numbers: those are not cut along a band."""
    return x is not None and x.shape[3] > 1 and x.shape[4] > 1


def _strips(q, k, v, added, fixed, rule, offset):
    n, m = q.shape[3], k.shape[2]
    count = min(MOST_STRIPS, n // STRIP)
    size = -(-n // count)
    results = []
    for start in range(0, n, size):
        stop = min(start + size, n)
        first, last = _reached(start + offset, stop - 1 + offset, rule, m)
        rows = partial(_slice, start=start, stop=stop, axis=3)
        keys = partial(_slice, start=first, stop=last, axis=4)
        near = partial(jax.tree.map, lambda x: keys(rows(x)))  # noqa: B023
        some_k, some_v = (x[:, :, first:last] for x in (k, v))
        results.append(attend(rows(q), some_k, some_v, near(added), near(fixed), rule))
    return jnp.concatenate(results, 3)


def _reached(low: int, high: int, rule: Rule, m: int) -> tuple[int, int]:
    """The keys that queries at positions low to high see; at least one, for its shape."""
    first = 0 if rule.left is None else min(max(low - rule.left, 0), m - 1)
    last = m if rule.right is None else min(max(high + rule.right + 1, first + 1), m)
    return first, max(last, first + 1)


def _slice(x, start: int, stop: int, axis: int):
    return x if x.shape[axis] == 1 else lax.slice_in_dim(x, start, stop, axis=axis)


def _banded(q, k, v, added, fixed, rule, offset, chunk):
    b, n = q.shape[0], q.shape[3]
    count = -(-n // chunk)
    rows = partial(_row_chunks, count=count, chunk=chunk)
    first, length = offset - rule.left, chunk + rule.left + rule.right
    windows = partial(_key_windows, first=first, count=count, chunk=chunk, length=length)

    def cut(x):
        if x.shape[3] > 1:
            return rows(x)
        return windows(x, axis=4) if x.shape[4] > 1 else x[:, None]

    position = windows(fixed.key_position, axis=4, fill=_NOWHERE)
    added, rest = jax.tree.map(cut, (added, fixed._replace(key_position=None)))
    fold = partial(jax.tree.map, partial(_as_batch, b=b, count=count))
    some_q, some_k, some_v = fold((rows(q), windows(k, axis=2), windows(v, axis=2)))
    fixed = rest._replace(key_position=position)
    y = attend(some_q, some_k, some_v, fold(added), fold(fixed), rule)
    y = jnp.moveaxis(y.reshape(b, count, *y.shape[1:]), 1, 3)
    return y.reshape(*y.shape[:3], count * chunk, y.shape[-1])[:, :, :, :n]


def _row_chunks(x, count: int, chunk: int):
    """(b, ..., n, *) to (b, count, ..., chunk, *), filled up with zeros; n is axis 3."""
    x = _padded(x, 0, count * chunk - x.shape[3], 3, 0)
    x = x.reshape(*x.shape[:3], count, chunk, *x.shape[4:])
    return jnp.moveaxis(x, 3, 1)


def _key_windows(x, axis: int, first: int, count: int, chunk: int, length: int, fill=0):
    """The keys [first + j chunk, first + j chunk + length) of each chunk j, on a new axis 1.

    length <= 2 chunk: a window is a piece of two neighbouring blocks, so the gradient is a sum of
    two slices, not a scatter.
    """
    x = _padded(x, -first, first + (count + 1) * chunk - x.shape[axis], axis, fill)
    x = x.reshape(*x.shape[:axis], count + 1, chunk, *x.shape[axis + 1 :])
    x = jnp.moveaxis(x, axis, 1)
    pair = jnp.concatenate([x[:, :-1], x[:, 1:]], axis + 1)
    return lax.slice_in_dim(pair, 0, length, axis=axis + 1)


def _padded(x, low: int, high: int, axis: int, fill):
    """Negative numbers cut off."""
    none = (0, 0, 0)
    config = [(low, high, 0) if a == axis else none for a in range(x.ndim)]
    return lax.pad(x, jnp.asarray(fill, x.dtype), config)


def _as_batch(x, b: int, count: int):
    """(b or 1, count or 1, ...) to (b count or 1, ...)."""
    if x.shape[:2] == (1, 1):
        return x[0]
    return jnp.broadcast_to(x, (b, count, *x.shape[2:])).reshape(b * count, *x.shape[2:])
