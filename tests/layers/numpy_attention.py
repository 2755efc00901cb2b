# SPDX-License-Identifier: Apache-2.0
"""Softmax attention in NumPy, float64, one query at a time, from the definitions."""

from typing import Any

import numpy as np

from tests.layers.numpy_layers import array, linear


def attention(
    module: Any, x: np.ndarray, context: np.ndarray | None = None, seen: Any = None
) -> np.ndarray:
    """An `Attention` layer in eval mode. `seen(b, h, i, j)` says whether query i sees key j.

    Causality and the window are the module's; RoPE, ALiBi and T5's bias by their formulas.
    """
    context = x if context is None else context
    leading = x.shape[:-2]
    x, context = x.reshape(-1, *x.shape[-2:]), context.reshape(-1, *context.shape[-2:])
    y = [_one(module, b, x[b], context[b], seen) for b in range(len(x))]
    return linear(module.out, np.array(y)).reshape(*leading, *x.shape[1:])


def _one(module: Any, b: int, x: np.ndarray, context: np.ndarray, seen: Any) -> np.ndarray:
    d = module.head_dim
    rows = np.zeros((len(x), module.num_heads * d))
    query, key, value = linear(module.query, x), linear(module.key, context), None
    value = linear(module.value, context)
    for h in range(module.num_heads):
        g = h // (module.num_heads // module.num_kv_heads)
        q, k, v = (a[:, i * d : (i + 1) * d] for a, i in ((query, h), (key, g), (value, g)))
        if module.qk_norm:
            q, k = rms_norm(module.query_norm, q), rms_norm(module.key_norm, k)
        for i in range(len(x)):
            keys = [j for j in range(len(context)) if visible(module, i, j)]
            keys = [j for j in keys if seen is None or seen(b, h, i, j)]
            if not keys:
                continue
            scores = np.array([score(module, h, q[i], k[j], i, j) for j in keys])
            weights = np.exp(scores - scores.max())
            rows[i, h * d : (h + 1) * d] = weights @ v[keys] / weights.sum()
    return rows


def visible(module: Any, i: int, j: int) -> bool:
    """By causality and the window."""
    near = module.window is None or abs(i - j) < module.window
    return near and (j <= i or not module.causal)


def score(module: Any, h: int, q: np.ndarray, k: np.ndarray, i: int, j: int) -> float:
    """q k^T / sqrt(d), with what the scheme of positions makes of it."""
    scheme, position = type(module.position).__name__, module.position
    if scheme == "RoPE":
        q, k = turned(position, q, i), turned(position, k, j)
    total = q @ k / np.sqrt(len(q))
    if scheme == "ALiBi":
        heads = module.num_heads  # a power of two
        total -= 2.0 ** (-8 * (h + 1) / heads) * abs(i - j)
    if scheme == "RelativePosition":
        bucket = t5_bucket(j - i, position.buckets, position.max_distance, not module.causal)
        total += array(module.relative_bias.table)[bucket, h]
    return total


def turned(rope: Any, x: np.ndarray, position: float) -> np.ndarray:
    """Each pair as a complex number, times e^(i angle)."""
    features = int(len(x) * rope.fraction)
    half, y = features // 2, np.array(x)
    for pair in range(half):
        a, b = (2 * pair, 2 * pair + 1) if rope.interleaved else (pair, pair + half)
        z = (x[a] + 1j * x[b]) * np.exp(1j * position * rope.base ** (-2 * pair / features))
        y[a], y[b] = z.real, z.imag
    return y


def t5_bucket(distance: int, buckets: int, max_distance: int, bidirectional: bool) -> int:
    """Word by word: arXiv 1910.10683, section 2.1, and its code."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    share = np.log(distance / exact) / np.log(max_distance / exact)
    return first + min(exact + int(share * (buckets - exact)), buckets - 1)


def rms_norm(module: Any, x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + module.epsilon) * array(module.scale)
