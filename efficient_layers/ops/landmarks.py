# SPDX-License-Identifier: Apache-2.0
"""Softmax attention through few landmarks (Nystrom), and through given keys."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from efficient_layers.ops.chunks import to_chunks, wide_einsum


def softmax_weights(q: Float[Array, "*b n d"], k: Float[Array, "*b m d"]) -> Float[Array, "*b n m"]:
    """softmax_j(q_i . k_j / sqrt(d)), in float32 at the least."""
    logits = wide_einsum("...nd,...md->...nm", q, k)
    return jax.nn.softmax(logits * q.shape[-1] ** -0.5, -1)


def segment_means(x: Float[Array, "*b n d"], count: int) -> Float[Array, "*b m d"]:
    """Means of segments of ceil(n / count) positions; the last segment may be shorter.

    `count` of them where it divides n; fewer where some would be empty; n where n < count.
    """
    n = x.shape[-2]
    size = max(1, -(-n // count))
    segments = to_chunks(x, size)
    filled = jnp.minimum(n - size * jnp.arange(segments.shape[-3]), size)
    return segments.sum(-2) / filled[:, None].astype(x.dtype)


def nystrom_attention(
    q: Float[Array, "*b n d"],
    k: Float[Array, "*b n d"],
    v: Float[Array, "*b n d"],
    *,
    landmarks: int,
    iterations: int = 6,
) -> Float[Array, "*b n d"]:
    """softmax(q k~') pinv(softmax(q~ k~')) softmax(q~ k') v, with segment means q~, k~."""
    few_q, few_k = segment_means(q, landmarks), segment_means(k, landmarks)
    middle = pseudo_inverse(softmax_weights(few_q, few_k), iterations)
    seen = softmax_weights(few_q, k).astype(v.dtype)
    values = wide_einsum("...mn,...nd->...md", seen, v)
    values = wide_einsum("...ij,...jd->...id", middle, values)
    weights = softmax_weights(q, few_k).astype(v.dtype)
    return wide_einsum("...nm,...md->...nd", weights, values.astype(v.dtype)).astype(v.dtype)


def pseudo_inverse(a: Float[Array, "*b m m"], iterations: int = 6) -> Float[Array, "*b m m"]:
    """The Moore-Penrose inverse of matrices whose rows are weights (>= 0, of sum 1).

    z <- z (13 - a z (15 - a z (7 - a z))) / 4 from z = a' / |a|_1: of third order, products only.

    Reference: Razavi et al., *A new iterative method for finding approximate inverses of complex
    matrices*, 2014; Xiong et al. (arXiv 2102.03902), equation 11.
    """
    one = jnp.eye(a.shape[-1], dtype=a.dtype)
    z = a.swapaxes(-1, -2) / a.sum(-2).max(-1)[..., None, None]
    for _ in range(iterations):
        az = a @ z
        z = z @ (13 * one - az @ (15 * one - az @ (7 * one - az))) / 4
    return z
