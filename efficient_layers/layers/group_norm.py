# SPDX-License-Identifier: Apache-2.0
"""Group normalisation layer: a drop-in replacement of `flax.nnx.GroupNorm`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from efficient_layers.ops.group_norm import group_norm


class GroupNorm(nnx.GroupNorm):
    """y = scale (x - mean) / sqrt(var + epsilon) + bias, mean and var of a group of channels.

    `flax.nnx.GroupNorm` in a form that is fast channels last (`efficient_layers.ops.group_norm`):
    same constructor, attributes, state, and numbers to rounding. Statistics belong to one example:
    over all axes but the first, within `num_groups` groups of channels (or groups of `group_size`
    with `num_groups=None`). They are float32 for bfloat16 inputs and always take two passes,
    whatever `use_fast_variance`, so that the variance is exact where the mean is much larger than
    the deviation. A mask and `axis_name` go through flax. epsilon is flax's 1e-6 (torch: 1e-5).

    More than one leading batch axis needs `reduction_axes`, as in flax: (-3, -2, -1) for images.

    params = num_features * (use_scale + use_bias)
    MACs = 0

    Reference: Wu & He, *Group Normalization* (arXiv 1803.08494), section 3.1.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.GroupNorm(8, num_groups=2, rngs=nnx.Rngs(0))(jnp.ones((2, 4, 4, 8))).shape
    (2, 4, 4, 8)

    Raises:
      ValueError: groups that do not divide the channels; an input of other channels or without a
        batch axis.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int | None = 32,
        group_size: int | None = None,
        *,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ):
        super().__init__(num_features, num_groups, group_size, rngs=rngs, **kwargs)
        self.num_features = num_features

    def __call__(
        self, x: Float[Array, "b *s c"], *, mask: Bool[Array, "..."] | None = None
    ) -> Float[Array, "b *s c"]:
        """(b, *s, num_features), the same shape out. Where `mask` is 0, x is not counted."""
        self._check(x)
        with jax.named_scope("GroupNorm"):
            if mask is not None or self.axis_name is not None or jnp.iscomplexobj(x):
                return super().__call__(x, mask=mask)
            scale = None if self.scale is None else self.scale[...]
            bias = None if self.bias is None else self.bias[...]
            x, scale, bias = self.promote_dtype((x, scale, bias), dtype=self.dtype)
            return group_norm(
                x,
                scale,
                bias,
                groups=self.num_groups,
                axes=self._space(x.ndim),
                epsilon=self.epsilon,
            )

    def _space(self, rank):
        """The axes of statistics besides the channels; None is the default."""
        if self.reduction_axes is None:
            return None
        given = self.reduction_axes
        axes = {axis % rank for axis in ((given,) if isinstance(given, int) else given)}
        return sorted(axes - {rank - 1})

    def _check(self, x):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"GroupNorm expects a floating-point input. Got {x.dtype}.")
        if x.ndim < 2 or x.shape[-1] != self.num_features:
            raise ValueError(
                f"GroupNorm expects an input of shape (batch, ..., {self.num_features}). "
                f"Got {x.shape}."
            )
