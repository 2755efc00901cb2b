# SPDX-License-Identifier: Apache-2.0
"""Layer normalisation layer: a drop-in replacement of `flax.nnx.LayerNorm`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from efficient_layers.ops.layer_norm import layer_norm


class LayerNorm(nnx.LayerNorm):
    """y = scale (x - mean) / sqrt(var + epsilon) + bias, mean and var over the last axis.

    `flax.nnx.LayerNorm` with a variance that stays exact where the mean is much larger than the
    deviation, at the same speed (`efficient_layers.ops.layer_norm`): same constructor, attributes,
    state, and numbers to rounding. Statistics are float32 for bfloat16 inputs and always take two
    passes, whatever `use_fast_variance`. Other `reduction_axes` or `feature_axes`, a mask and
    `axis_name` go through flax. epsilon is flax's 1e-6 (torch: 1e-5).

    params = num_features * (use_scale + use_bias)
    MACs = 0

    Reference: Ba, Kiros & Hinton, *Layer Normalization* (arXiv 1607.06450), section 3.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.LayerNorm(8, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 8))).shape
    (2, 5, 8)

    Raises:
      ValueError: an input whose last axis is not `num_features`.
      TypeError: an input of integers.
    """

    def __call__(
        self, x: Float[Array, "*b d"], *, mask: Bool[Array, "..."] | None = None
    ) -> Float[Array, "*b d"]:
        """(*b, num_features), the same shape out. Where `mask` is 0, x is not counted."""
        check(self, x)
        with jax.named_scope("LayerNorm"):
            if not is_plain(self, x, mask):
                return super().__call__(x, mask=mask)
            scale = None if self.scale is None else self.scale[...]
            bias = None if self.bias is None else self.bias[...]
            x, scale, bias = self.promote_dtype((x, scale, bias), dtype=self.dtype)
            return layer_norm(x, scale, bias, epsilon=self.epsilon)


def is_plain(norm: Any, x: jax.Array, mask: jax.Array | None) -> bool:
    """Whether statistics are over the whole last axis, on one device, of real numbers."""
    local = mask is None and norm.axis_name is None and not jnp.iscomplexobj(x)
    return local and not _moved(norm.reduction_axes) and not _moved(norm.feature_axes)


def check(norm: Any, x: jax.Array) -> None:
    """Raises where x is not a floating-point array with `norm.num_features` on the last axis."""
    name, features = type(norm).__name__, norm.num_features
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(f"{name} expects a floating-point input. Got {x.dtype}.")
    if not _moved(norm.feature_axes) and (x.ndim < 1 or x.shape[-1] != features):
        raise ValueError(f"{name} expects an input of shape (*batch, {features}). Got {x.shape}.")


def _moved(axes: Any) -> bool:
    """Whether `axes` is anything but the last axis."""
    return axes not in (-1, (-1,), [-1])
