# SPDX-License-Identifier: Apache-2.0
"""The kernels that JAX ships for softmax attention: cuDNN's on GPU, the flash kernel on TPU.

Both are custom VJPs: forward mode and higher derivatives want `lowering("reference")`. What a
kernel cannot express is left to the blocks of `attention_blockwise`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from efficient_layers.ops.attention_terms import Added, Fixed, Rule, seen


def attend_by_kernel(
    platform: str,
    q: Float[Array, "b g r n d"],
    k: Float[Array, "b g m d"],
    v: Float[Array, "b g m e"],
    added: Added,
    fixed: Fixed,
    rule: Rule,
    offset: int | None,
) -> Float[Array, "b g r n e"] | None:
    """None where `platform` ("gpu" or "tpu") has no kernel for this."""
    same = q.shape[-1] == v.shape[-1] and q.dtype == k.dtype == v.dtype
    if not same or offset != 0 or rule.rate or added.slopes is not None or not q.size * k.size:
        return None
    form = {"gpu": _gpu, "tpu": _tpu}[platform]
    y = form(q, k, v, added, fixed, rule)
    return None if y is None else _zero_if_blind(y, q, k, added, fixed, rule)


def _zero_if_blind(y, q, k, added, fixed, rule):
    """The kernels give a query without keys the mean of all values."""
    if fixed.mask is None and fixed.query_segments is None and q.shape[3] <= k.shape[2]:
        return y  # position i sees key i
    visible = seen(fixed, rule)
    return y if visible is None else jnp.where(visible.any(-1, keepdims=True), y, 0)


def _gpu(q, k, v, added: Added, fixed: Fixed, rule: Rule):
    """`jax.nn.dot_product_attention`: cuDNN for half precision, XLA's fusions for the rest."""
    if fixed.query_segments is not None or (rule.left is None and rule.right not in (None, 0)):
        return None
    b, g, r, n, d = q.shape
    query = jnp.moveaxis(q, 3, 1).reshape(b, n, g * r, d)
    key, value = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
    settings = {
        "bias": _one_head_axis(added.bias, g, r),
        "mask": _one_head_axis(fixed.mask, g, r),
        "scale": 1.0,
        "is_causal": rule.right == 0,
        "local_window_size": None if rule.left is None else (rule.left, rule.right),
        "implementation": "cudnn" if _cudnn_takes(q, k) else "xla",
    }
    if settings["bias"] is not None:
        settings["bias"] = settings["bias"].astype(q.dtype)
    y = jax.nn.dot_product_attention(query, key, value, **settings)
    return jnp.moveaxis(y.reshape(b, n, g, r, d), 1, 3)


def _cudnn_takes(q, k) -> bool:
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    sizes = q.shape[-1] % 8 == 0 and q.shape[-1] <= 128 and q.shape[3] % 2 == k.shape[2] % 2 == 0
    return half and sizes and _ampere()


def _ampere() -> bool:
    """Whether the default device has compute capability 8.0, which cuDNN's kernel asks for."""
    if jax.default_backend() != "gpu":
        return False
    capability = str(getattr(jax.devices()[0], "compute_capability", "0"))
    return capability.replace(".", "", 1).isdigit() and float(capability) >= 8


def _one_head_axis(x, g: int, r: int):
    """(b, g, r, n, m) to (b, h, n, m), heads 1 where both are."""
    if x is None:
        return None
    b, gx, rx, n, m = x.shape
    if gx * rx > 1:
        x = jnp.broadcast_to(x, (b, g, r, n, m))
        gx, rx = g, r
    return x.reshape(b, gx * rx, n, m)


def _tpu(q, k, v, added: Added, fixed: Fixed, rule: Rule):
    """Pallas' flash attention: multiples of 128 positions, own keys for each head."""
    from jax.experimental.pallas.ops.tpu import flash_attention as flash  # 0.2 s: only where used

    (b, _, r, n, d), m = q.shape, k.shape[2]
    spans = (rule.left, rule.right) in ((None, None), (None, 0))
    fits = n % 128 == m % 128 == 0 and (d < 128 or d % 128 == 0)
    if r > 1 or not fits or not spans or added.bias is not None or fixed.mask is not None:
        return None
    segments = None
    if fixed.query_segments is not None:
        pair = (fixed.query_segments, fixed.key_segments)
        segments = flash.SegmentIds(*(x.astype(jnp.int32).reshape(b, -1) for x in pair))
    causal = rule.right == 0
    y = flash.flash_attention(q[:, :, 0], k, v, segment_ids=segments, causal=causal, sm_scale=1.0)
    return y[:, :, None]
