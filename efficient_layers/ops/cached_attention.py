# SPDX-License-Identifier: Apache-2.0
"""Attention of few new tokens to a long cache, heads first; int8 rows with one scale each.

Letters: g key heads, n new tokens of h = g r query heads, m slots of the cache, d features.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from efficient_layers.ops.precision import float32_or_wider


def quantize_rows(
    x: Float[Array, "*b d"],
) -> tuple[Int[Array, "*b d"], Float[Array, "*b"]]:
    """int8 and scales with x = int8 * scale[..., None], off by scale / 2 at most.

    scale = max |x| / 127 over the last axis; 1 where a row is zero.

    >>> import jax.numpy as jnp
    >>> rows, scale = quantize_rows(jnp.array([[127.0, -63.6]]))
    >>> rows.tolist(), scale.tolist()
    ([[127, -64]], [1.0])
    """
    wide = x.astype(float32_or_wider(x.dtype))
    most = jnp.abs(wide).max(-1)
    scale = jnp.where(most == 0, 1, most / 127)
    return jnp.round(wide / scale[..., None]).astype(jnp.int8), scale


def cached_attention(
    query: Float[Array, "*b n h d"],
    key: Num[Array, "*b g m d"],
    value: Num[Array, "*b g m d"],
    scales: tuple[Float[Array, "*b g m"], Float[Array, "*b g m"]] | None,
    seen: Bool[Array, "n m"],
    bias: Float[Array, "h n m"] | None = None,
) -> Float[Array, "*b n h d"]:
    """softmax(q k^T / sqrt(d) + bias) v over the slots that are `seen`, at least one a query.

    `scales` of int8 keys and values are applied to the scores and to the weights: what is read of
    the cache is never copied in another type as a whole where XLA fuses the conversion.
    """
    *batch, n, h, d = query.shape
    g, m = key.shape[-3:-1]
    wide = float32_or_wider(query.dtype)
    query = query * jnp.asarray(d**-0.5, query.dtype)
    q = jnp.moveaxis(query.reshape(*batch, n, g, h // g, d), -4, -2)
    q = q.reshape(*batch, g, h // g * n, d)
    s = jnp.einsum("...id,...md->...im", q, key.astype(q.dtype), preferred_element_type=wide)
    if scales is not None:
        s = s * scales[0].astype(wide)[..., None, :]
    s = s.reshape(*batch, g, h // g, n, m)
    lead = (1,) * len(batch)
    if bias is not None:
        s = s + bias.astype(wide).reshape(*lead, g, h // g, n, m)
    s = jnp.where(seen.reshape(*lead, 1, 1, n, m), s, -jnp.inf)
    p = jax.nn.softmax(s, -1).reshape(*batch, g, h // g * n, m)
    if scales is not None:
        p = p * scales[1].astype(wide)[..., None, :]
    p = p.astype(query.dtype)
    y = jnp.einsum("...im,...md->...id", p, value.astype(p.dtype), preferred_element_type=wide)
    y = jnp.moveaxis(y.reshape(*batch, g, h // g, n, d), -2, -4)
    return y.reshape(*batch, n, h, d).astype(query.dtype)
