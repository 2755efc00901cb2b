# SPDX-License-Identifier: Apache-2.0
"""Softmax attention: one signature for every head layout, mask, window, bias and platform."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from efficient_layers.ops.attention_kernels import attend_by_kernel
from efficient_layers.ops.attention_spans import attend_seen
from efficient_layers.ops.attention_terms import Added, Fixed, Rule, softmax_attention
from efficient_layers.ops.lowering import current_lowering
from efficient_layers.ops.precision import float32_or_wider

Window = int | tuple[int, int]


def dot_product_attention(
    query: Float[Array, "*b n h d"],
    key: Float[Array, "*b m g d"],
    value: Float[Array, "*b m g e"],
    *,
    causal: bool = False,
    window: Window | None = None,
    mask: Bool[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    slopes: Float[Array, "h"] | None = None,
    segments: tuple[Int[Array, "*b n"], Int[Array, "*b m"]] | None = None,
    query_offset: int | Int[Array, "*b"] = 0,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> Float[Array, "*b n h e"]:
    """softmax(scale q k^T + bias - slopes |i - j|) v, over the keys that a query sees.

    Query i stands at position `query_offset` + i, key j at j. A key is seen if every condition
    given allows it. A query that sees no key gets zeros. With g < h, query heads
    [a h / g, (a + 1) h / g) share key head a, which is never repeated in memory. The softmax is in
    float32 or wider; the result has the dtype of `query`.

    On CPU neither forward nor backward pass stores n x m numbers unless `mask` or `bias` does:
    memory grows with n + m. Forward mode and higher derivatives work.

    Args:
      causal: hides keys after the query's position.
      window: hides keys further than `left` before or `right` after it, for (left, right). An int
        w is (w - 1, w - 1): with `causal`, the last w positions, the own one among them.
      mask: True = seen. Broadcastable to (*b, h, n, m).
      bias: added to the scaled scores. Broadcastable to (*b, h, n, m). -inf hides.
      slopes: ALiBi, one number a head.
      segments: of queries and keys, for packed sequences: seen only where equal.
      query_offset: position of query 0 among the keys: the length of a cache before this call.
      scale: of q k^T. None: d ** -0.5.
      dropout_rate: share of the weights set to 0, the others divided by 1 - rate.
      dropout_key: where `dropout_rate` > 0. The same key drops the same weights on any platform
        that computes in blocks or plainly.

    Raises:
      ValueError: shapes do not fit, h is no multiple of g, a window below 1, a rate outside
        [0, 1), dropout without a key.
      TypeError: `mask` is not boolean, positions or segments are not integers, inputs not floats.

    References: Vaswani et al., *Attention Is All You Need* (arXiv 1706.03762), section 3.2.1; Dao,
    *FlashAttention-2* (arXiv 2307.08691), for what is kept between the passes; Press et al.,
    *Train Short, Test Long* (arXiv 2108.12409), for `slopes`.
    """
    _check_inputs(query, key, value)
    rule = Rule(*_window(window, causal), _rate(dropout_rate, dropout_key))
    (*batch, n, h, d), (m, g) = query.shape, key.shape[-3:-1]
    full = (*batch, h, n, m)
    added, fixed = _terms(full, g, rule, mask, bias, slopes, segments, query_offset, dropout_key)
    scale = d**-0.5 if scale is None else scale
    q = jnp.moveaxis((query * scale).reshape(*batch, n, g, h // g, d), -4, -2)
    k, v = jnp.moveaxis(key, -3, -2), jnp.moveaxis(value, -3, -2)
    if current_lowering() == "reference":
        if q.dtype != k.dtype:
            q, k = (x.astype(float32_or_wider(q.dtype)) for x in (q, k))
        y = softmax_attention(q, k, v, added, fixed, rule)
    else:
        offset = query_offset if isinstance(query_offset, int) else None
        y = _in_blocks(q, k, v, added, fixed, rule, offset)
    return jnp.moveaxis(y, -2, -4).reshape(*batch, n, h, value.shape[-1]).astype(query.dtype)


def _in_blocks(q, k, v, added, fixed, rule, offset):
    """One batch axis; by a kernel of the platform, or block by block in float32 or wider."""
    batch, platform, wide = q.shape[:-4], current_lowering(), float32_or_wider(q.dtype)
    added, fixed = (jax.tree.map(partial(_one_batch_axis, batch=batch), x) for x in (added, fixed))
    q, k, v = (x.reshape(math.prod(batch), *x.shape[len(batch) :]) for x in (q, k, v))
    y = None
    if platform in ("gpu", "tpu"):
        y = attend_by_kernel(platform, q, k, v, added, fixed, rule, offset)
    if y is None:
        q, k, v = (x.astype(wide) for x in (q, k, v))
        y = attend_seen(q, k, v, added, fixed, rule, offset)
    return y.reshape(*batch, *y.shape[1:])


def _one_batch_axis(x, batch):
    """(*b, g, r, n, m) to (b, g, r, n, m), or (1, ...) where all of *b are 1."""
    here, rest = x.shape[: len(batch)], x.shape[len(batch) :]
    if set(here) <= {1}:
        return x.reshape(1, *rest)
    return jnp.broadcast_to(x, (*batch, *rest)).reshape(math.prod(batch), *rest)


def _terms(full, g, rule, mask, bias, slopes, segments, query_offset, dropout_key):
    """`Added` and `Fixed` with axes (*b, g, r, n, m), from the arguments as given."""
    *batch, h, n, m = full
    added = Added(_bias(bias, full, g), _slopes(slopes, full, g))
    fixed = Fixed(mask=_mask(mask, full, g))
    if segments is not None:
        queries, keys = _segments(segments, full)
        fixed = fixed._replace(query_segments=queries, key_segments=keys)
    offset = _offset(query_offset, batch)
    if slopes is not None or rule.left is not None or rule.right is not None:
        fixed = fixed._replace(
            query_position=offset + jnp.arange(n, dtype=jnp.int32)[:, None],
            key_position=jnp.arange(m, dtype=jnp.int32).reshape((1,) * (len(batch) + 3) + (m,)),
        )
    if rule.rate:
        keys = jax.random.split(dropout_key, 3)
        row = (*batch, g, h // g, n, 1)
        fixed = fixed._replace(
            query_words=(_words(keys[0], row), _words(keys[1], row)),
            key_words=_words(keys[2], (*batch, g, h // g, 1, m)),
        )
    return added, fixed


def _words(key, shape):
    return jax.random.bits(key, shape, jnp.uint32)


def _check_inputs(query, key, value) -> None:
    shapes = f"query {query.shape}, key {key.shape}, value {value.shape}"
    for name, x in (("query", query), ("key", key), ("value", value)):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"dot_product_attention expects floats. Got {name} of {x.dtype}.")
    ranks = {query.ndim, key.ndim, value.ndim}
    if len(ranks) > 1 or query.ndim < 3:
        raise ValueError(f"Expected (*b, n, h, d), (*b, m, g, d), (*b, m, g, e). Got {shapes}.")
    same_batch = query.shape[:-3] == key.shape[:-3] == value.shape[:-3]
    if not same_batch or key.shape[:-1] != value.shape[:-1]:
        raise ValueError(f"Batch axes, and m and g of key and value, must be equal. Got {shapes}.")
    if query.shape[-1] != key.shape[-1] or not query.shape[-1]:
        raise ValueError(f"query and key must have the same d > 0. Got {shapes}.")
    h, g = query.shape[-2], key.shape[-2]
    if g < 1 or h < 1 or h % g:
        raise ValueError(f"Key heads must divide query heads. Got {h} query and {g} key heads.")


def _window(window: Any, causal: bool) -> tuple[int | None, int | None]:
    """(left, right) with None for no limit."""
    if window is None:
        return None, 0 if causal else None
    if isinstance(window, int) and not isinstance(window, bool):
        if window < 1:
            raise ValueError(f"window must be at least 1, the own position. Got {window}.")
        window = (window - 1, window - 1)
    if not _pair_of_ints(window):
        raise TypeError(f"window expects an int or (left, right). Got {window!r}.")
    left, right = window
    if left < 0 or right < 0:
        raise ValueError(f"window (left, right) must not be negative. Got {window}.")
    return left, 0 if causal else right


def _pair_of_ints(window: Any) -> bool:
    pair = isinstance(window, tuple) and len(window) == 2
    return pair and all(isinstance(w, int) and not isinstance(w, bool) for w in window)


def _rate(rate: float, key: jax.Array | None) -> float:
    if not 0 <= rate < 1:
        raise ValueError(f"dropout_rate must be in [0, 1). Got {rate}.")
    if rate and key is None:
        raise ValueError(f"dropout_rate={rate} needs dropout_key. Got None.")
    return float(rate)


def _mask(mask, full, g):
    if mask is not None and mask.dtype != jnp.bool_:
        raise TypeError(f"mask must be boolean, True = seen. Got {mask.dtype}; use bias to add.")
    return _grouped("mask", mask, full, g)


def _bias(bias, full, g):
    if bias is not None and not jnp.issubdtype(bias.dtype, jnp.floating):
        raise TypeError(f"bias must be a float array. Got {bias.dtype}.")
    return _grouped("bias", bias, full, g)


def _grouped(name, x, full, g):
    """(*b, h, n, m), with ones, to (*b, g, r, n, m)."""
    if x is None:
        return None
    fits = x.ndim <= len(full) and all(
        size in (1, whole) for size, whole in zip(x.shape[::-1], full[::-1], strict=False)
    )
    if not fits:
        raise ValueError(f"{name} must broadcast to (*b, h, n, m) = {full}. Got {x.shape}.")
    *batch, h, n, m = (1,) * (len(full) - x.ndim) + x.shape
    heads = (1, 1) if h == 1 else (g, h // g)
    return x.reshape(*batch, *heads, n, m)


def _slopes(slopes, full, g):
    """(h,) to (1, ..., g, r, 1, 1)."""
    if slopes is None:
        return None
    *batch, h, _, _ = full
    if slopes.shape != (h,):
        raise ValueError(f"slopes must have shape (h,) = ({h},). Got {slopes.shape}.")
    if not jnp.issubdtype(slopes.dtype, jnp.floating):
        raise TypeError(f"slopes must be a float array. Got {slopes.dtype}.")
    return slopes.reshape(*(1,) * len(batch), g, h // g, 1, 1)


def _segments(segments, full):
    *batch, _, n, m = full
    try:
        queries, keys = segments
    except (TypeError, ValueError):
        raise TypeError("segments expects a pair (of queries, of keys).") from None
    expected = (*batch, n), (*batch, m)
    if (queries.shape, keys.shape) != expected:
        got = f"{queries.shape} and {keys.shape}"
        raise ValueError(f"segments must have shapes {expected[0]} and {expected[1]}. Got {got}.")
    if not all(jnp.issubdtype(x.dtype, jnp.integer) for x in (queries, keys)):
        raise TypeError(f"segments must be integers. Got {queries.dtype} and {keys.dtype}.")
    return queries[..., None, None, :, None], keys[..., None, None, None, :]


def _offset(offset, batch):
    """int32 of axes (*b, g, r, n, m)."""
    offset = jnp.asarray(offset)
    if not jnp.issubdtype(offset.dtype, jnp.integer):
        raise TypeError(f"query_offset must be an integer. Got {offset.dtype}.")
    if offset.shape not in ((), tuple(batch)):
        raise ValueError(f"query_offset must be a number or {tuple(batch)}. Got {offset.shape}.")
    ones = (1,) * (len(batch) + 4 - offset.ndim)
    return offset.astype(jnp.int32).reshape(*offset.shape, *ones)
