# SPDX-License-Identifier: Apache-2.0
"""Layer normalisation over the last axis, with a two-pass variance and a closed derivative.

    n = r z,   z = x - E[x],   r = 1 / sqrt(E[z^2] + epsilon),   y = scale n + bias

z is centred twice, which takes away the rounding of the first mean: of 768 numbers with mean 10,000
and deviation 1, n is off by 3e-6 (once: 2e-3; with E[x^2] - E[x]^2 the variance is 0 by rounding).
XLA's CPU backend runs all three forwards alike, since a row is in cache, but makes a slow program
of this form's autodiff: 17.7 ms forward and gradient where the derivative below takes 8.2, as much
as autodiff of E[x^2] - E[x]^2 (8x512x768, float32, 2 cores). Along a tangent t of x,

    dn = r t + b z - r E[t],   b = -r^3 E[z t].

As a `custom_jvp` it keeps forward mode and second derivatives.
"""

import jax
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.ops.lowering import current_lowering
from efficient_layers.ops.precision import float32_or_wider


def layer_norm(
    x: Float[Array, "*b d"],
    scale: Float[Array, "d"] | None = None,
    bias: Float[Array, "d"] | None = None,
    *,
    epsilon: float = 1e-6,
) -> Float[Array, "*b d"]:
    """x with mean 0 and variance 1 along its last axis, then times scale plus bias.

    Statistics are float32 or wider; y has x's dtype.

    Reference: Ba, Kiros & Hinton, *Layer Normalization* (arXiv 1607.06450), section 3.

    >>> import jax.numpy as jnp
    >>> layer_norm(jnp.array([[10001.0, 10003.0]]), epsilon=0.0)
    Array([[-1.,  1.]], dtype=float32)
    """
    wide = x.astype(float32_or_wider(x.dtype))
    y = (_reference if current_lowering() == "reference" else _closed_form)(epsilon, wide)
    row = (1,) * (x.ndim - 1) + (-1,)
    y = y if scale is None else y * scale.reshape(row).astype(y.dtype)
    y = y if bias is None else y + bias.reshape(row).astype(y.dtype)
    return y.astype(x.dtype)


def _reference(epsilon: float, x: jax.Array) -> jax.Array:
    z, r = _centred(epsilon, x)
    return z * r


_closed_form = jax.custom_jvp(_reference, nondiff_argnums=(0,))


@_closed_form.defjvp
def _closed_form_jvp(epsilon, primals, tangents):
    (x,), (t,) = primals, tangents
    z, r = _centred(epsilon, x)
    b = -(r**3) * (z * t).mean(-1, keepdims=True)
    return z * r, t * r + z * b - r * t.mean(-1, keepdims=True)


def _centred(epsilon, x):
    z = x - x.mean(-1, keepdims=True)
    z = z - z.mean(-1, keepdims=True)
    return z, lax.rsqrt((z * z).mean(-1, keepdims=True) + epsilon)
