# SPDX-License-Identifier: Apache-2.0
"""Concatenated ReLU: both signs of every channel, so that a convolution learns half as many."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jaxtyping import Array, Float


class CReLU(nnx.Module):
    """y = relu(scale (x, -x) + shift): 2 in_features channels, scale and shift with `affine`.

    Early filters of a network come in pairs of opposite sign; this gives the second of a pair for
    nothing. `affine` lets the two halves have thresholds of their own; it starts as scale 1 and
    shift 0, that is, as the plain form.

    params = 4 * in_features if affine else 0
    MACs = 0

    Reference: Shang et al., *Understanding and Improving Convolutional Neural Networks via
    Concatenated Rectified Linear Units* (arXiv 1603.05201), definition 2.1; `affine` is Kim et al.,
    *PVANet* (arXiv 1608.08021), section 2.1, figure 1.

    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.CReLU(2)(jnp.array([[3.0, -1.0]])).tolist()
    [[3.0, 0.0, 0.0, 1.0]]

    Raises:
      ValueError: a width below 1; an input of other channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        *,
        affine: bool = False,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
    ):
        if in_features < 1:
            raise ValueError(f"CReLU expects in_features of at least 1. Got {in_features}.")
        self.in_features = in_features
        self.affine = affine
        self.dtype = dtype
        self.scale: nnx.Param[jax.Array] | None = nnx.data(None)
        self.shift: nnx.Param[jax.Array] | None = nnx.data(None)
        if affine:
            self.scale = nnx.Param(jnp.ones(2 * in_features, param_dtype))
            self.shift = nnx.Param(jnp.zeros(2 * in_features, param_dtype))

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b o"]:
        if x.ndim < 1 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"CReLU expects an input of shape (*batch, {self.in_features}). Got {x.shape}."
            )
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"CReLU expects a floating-point input. Got {x.dtype}.")
        with jax.named_scope("CReLU"):
            scale = None if self.scale is None else self.scale[...]
            shift = None if self.shift is None else self.shift[...]
            x, scale, shift = promote_dtype((x, scale, shift), dtype=self.dtype)
            both = jnp.concatenate([x, -x], axis=-1)
            if scale is not None and shift is not None:
                both = scale * both + shift
            return jax.nn.relu(both)
