# SPDX-License-Identifier: Apache-2.0
"""Group-equivariant convolution: turn the input by 90 degrees, and the output turns with it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jaxtyping import Array, Float

from efficient_layers.ops.conv import conv_general_dilated
from efficient_layers.ops.p4 import ORIENTATIONS, filter_bank


class P4Conv(nnx.Module):
    """y[p, s] = sum_{q, r} x[p + q, r] kernel[R^-s q, r - s] + bias: one kernel in four turns.

    x carries an axis of orientations: 4 between layers, 1 for an image (`x[..., None, :]`, and
    `in_orientations=1`: the lifting layer). The result has 4. Activations, and a BatchNorm of
    `out_features` on the last axis, keep the equivariance; a maximum or mean over the axis of
    orientations makes a result that turns with the image, one over h and w too an invariant one.

    It is one ordinary convolution from (r in) to (4 out) channels with a kernel that is expanded
    when called: the time of that convolution with a quarter of its weights. Under strides s the
    turn is exact where (h - 1) and (w - 1) are multiples of s. The kernel keeps the variance
    (1 / (k^2 r in)).

    weights = kernel_size ** 2 * in_orientations * in_features * out_features
    params = weights + (out_features if use_bias else 0)
    MACs = positions * weights

    Reference: Cohen & Welling, *Group Equivariant Convolutional Networks* (arXiv 1602.07576),
    sections 4.2, 6 and 7. Differs from the paper: p4 only, without p4m's reflections.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.P4Conv(2, 3, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 5, 4, 2))).shape
    (1, 5, 5, 4, 3)

    Raises:
      ValueError: a size below 1; `in_orientations` neither 1 nor 4; an input of another shape.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 3,
        strides: int = 1,
        *,
        in_orientations: int = ORIENTATIONS,
        padding: int | None = None,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        sizes = (in_features, out_features, kernel_size, strides)
        if min(sizes) < 1:
            raise ValueError(
                "P4Conv expects in_features, out_features, kernel_size and strides of at least 1. "
                f"Got {sizes}."
            )
        if in_orientations not in (1, ORIENTATIONS):
            raise ValueError(
                "P4Conv expects in_orientations of 1 (an image) or 4 (maps of another P4Conv). "
                f"Got {in_orientations}."
            )
        shape = (kernel_size, kernel_size, in_orientations, in_features, out_features)
        initial = nnx.initializers.lecun_normal()(rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(initial)
        self.bias: nnx.Param[jax.Array] | None = nnx.data(None)
        if use_bias:
            self.bias = nnx.Param(jnp.zeros(out_features, param_dtype))
        self.in_features = in_features
        self.out_features = out_features
        self.in_orientations = in_orientations
        self.strides = strides
        self.padding = (kernel_size - 1) // 2 if padding is None else padding
        self.dtype = dtype

    def __call__(self, x: Float[Array, "*b h w r c"]) -> Float[Array, "*b h2 w2 s o"]:
        """Padding is the same on all sides, as equivariance needs: torch's for an odd kernel."""
        self._check(x)
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        *batch, h, w, r, c = x.shape
        with jax.named_scope("P4Conv"):
            y = conv_general_dilated(
                x.reshape(math.prod(batch), h, w, r * c),
                filter_bank(kernel),
                (self.strides, self.strides),
                [(self.padding, self.padding)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            y = y.reshape(*batch, *y.shape[1:3], ORIENTATIONS, self.out_features)  # (s o) -> s o
            return y if bias is None else y + bias

    def _check(self, x):
        if x.ndim < 4 or x.shape[-2:] != (self.in_orientations, self.in_features):
            raise ValueError(
                "P4Conv expects an input of shape (*batch, h, w, orientations, channels) = "
                f"(*batch, h, w, {self.in_orientations}, {self.in_features}). Got {x.shape}."
            )
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"P4Conv expects a floating-point input. Got {x.dtype}.")
