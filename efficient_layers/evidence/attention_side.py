# SPDX-License-Identifier: Apache-2.0
"""Softmax attention as modules without parameters: ours and JAX's own."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.ops.attention import dot_product_attention


class SelfAttention(nnx.Module):
    """Attention of q, k and v side by side on the axis of heads."""

    def __init__(self, causal: bool):
        self.causal = causal

    def __call__(self, x: Float[Array, "b n h d"]) -> Float[Array, "b n h/3 d"]:
        return dot_product_attention(*jnp.split(x, 3, axis=2), causal=self.causal)


class PlainSelfAttention(nnx.Module):
    """The same by `jax.nn.dot_product_attention`."""

    def __init__(self, causal: bool):
        self.causal = causal

    def __call__(self, x: Float[Array, "b n h d"]) -> Float[Array, "b n h/3 d"]:
        return jax.nn.dot_product_attention(*jnp.split(x, 3, axis=2), is_causal=self.causal)
