# SPDX-License-Identifier: Apache-2.0
"""Activations whose gradient needs its own rule."""

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
