# SPDX-License-Identifier: Apache-2.0
"""The fire module of SqueezeNet: squeeze the channels, then expand them by two convolutions."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.layers.conv import Conv


class Fire(nnx.Module):
    """y = relu([expand1x1(s), expand3x3(s)]), s = relu(squeeze(x)); plain convolutions with bias.

    `squeeze` is 1x1 to `squeeze_features` channels, the two others put out `expand1x1_features` and
    `expand3x3_features`; the 3x3 one is padded by 1.

    expand = expand1x1_features + 9 * expand3x3_features
    biases = squeeze_features + expand1x1_features + expand3x3_features
    params = squeeze_features * (in_features + expand) + biases
    MACs = h * w * squeeze_features * (in_features + expand)

    Differs from the paper: He initialisation (variance 2 / fan-in) in place of Glorot's.

    Reference: Iandola et al., *SqueezeNet* (arXiv 1602.07360), section 3.2, figure 1.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.Fire(8, 2, 6, 4, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 5, 8))).shape
    (1, 5, 5, 10)

    Raises:
      ValueError: a size below 1; an input of other rank or channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        squeeze_features: int,
        expand1x1_features: int,
        expand3x3_features: int,
        *,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        sizes = (in_features, squeeze_features, expand1x1_features, expand3x3_features)
        if min(sizes) < 1:
            raise ValueError(f"Fire expects sizes of at least 1. Got {sizes}.")
        settings: dict[str, Any] = {
            "kernel_init": nnx.initializers.he_normal(),
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.squeeze = Conv(in_features, squeeze_features, (1, 1), **settings)
        self.expand1x1 = Conv(squeeze_features, expand1x1_features, (1, 1), **settings)
        self.expand3x3 = Conv(squeeze_features, expand3x3_features, (3, 3), padding=1, **settings)

    def __call__(
        self, x: Float[Array, "*b h w c"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b h w o"]:
        """`out` receives "squeeze", "expand1x1" and "expand3x3", each after its activation."""
        with jax.named_scope("Fire"):
            squeezed = jax.nn.relu(self.squeeze(x))
            wide1, wide3 = self.expand1x1(squeezed), self.expand3x3(squeezed)
            wide1, wide3 = jax.nn.relu(wide1), jax.nn.relu(wide3)
        if out is not None:
            out.update(squeeze=squeezed, expand1x1=wide1, expand3x3=wide3)
        return jnp.concatenate([wide1, wide3], axis=-1)
