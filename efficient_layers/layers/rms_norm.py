# SPDX-License-Identifier: Apache-2.0
"""Root-mean-square normalisation layer: a drop-in replacement of `flax.nnx.RMSNorm`."""

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float

from efficient_layers.layers.layer_norm import check, is_plain
from efficient_layers.ops.rms_norm import rms_norm


class RMSNorm(nnx.RMSNorm):
    """y = scale x / sqrt(E[x^2] + epsilon), E over the last axis.

    `flax.nnx.RMSNorm` with another derivative (`efficient_layers.ops.rms_norm`: 2.5x faster on a
    CPU): same constructor, attributes, state and numbers. A layer normalisation without centring
    and bias: one sum instead of two, and half of the parameters. E is float32 for bfloat16 inputs.
    Other axes, a mask and `axis_name` go through flax. epsilon is flax's 1e-6 (torch: the dtype's).

    params = num_features * use_scale
    MACs = 0

    Reference: Zhang & Sennrich, *Root Mean Square Layer Normalization* (arXiv 1910.07467), section
    4, equation 4; epsilon is not in the paper.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.RMSNorm(8, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 8))).shape
    (2, 5, 8)

    Raises:
      ValueError: an input whose last axis is not `num_features`.
      TypeError: an input of integers.
    """

    def __call__(
        self, x: Float[Array, "*b d"], mask: Bool[Array, "..."] | None = None
    ) -> Float[Array, "*b d"]:
        """(*b, num_features), the same shape out. Where `mask` is 0, x is not counted."""
        check(self, x)
        with jax.named_scope("RMSNorm"):
            if not is_plain(self, x, mask):
                return super().__call__(x, mask)
            scale = None if self.scale is None else self.scale[...]
            x, scale = self.promote_dtype((x, scale), dtype=self.dtype)
            return rms_norm(x, scale, epsilon=self.epsilon)
