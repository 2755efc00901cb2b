# SPDX-License-Identifier: Apache-2.0
"""Convolution whose filters have mean 0 and a fixed variance, whatever the optimiser does."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from efficient_layers.layers.conv import Conv
from efficient_layers.ops.precision import float32_or_wider


class StandardizedConv(Conv):
    """`Conv` with kernel (w - mean) / sqrt(var + epsilon), mean and var of each output's filter.

    Same constructor as `Conv` and its parameters, w being `kernel`. It stands where a batch
    normalisation would need large batches: with `GroupNorm` behind it (Qiao et al., BiT), or with
    `scaled=True` and no normalisation at all (NFNets), where the kernel is also multiplied by
    gamma gain / sqrt(n): n inputs a filter, `gain` a learned number an output, first 1, and
    `gamma` the constant that undoes the activation's loss of variance (1.7139 for relu). Unscaled,
    a filter's squared sum is n, so something behind it has to normalise.

    The kernel is standardised in float32, then cast to `dtype`; epsilon is timm's 1e-6 inside the
    root (Qiao et al.: 1e-5 outside of it; NFNets: n var at least 1e-4).

    weights = prod(kernel_size) * in_features // feature_group_count * out_features
    params = weights + out_features * (use_bias + scaled)
    MACs = positions * weights

    Reference: Qiao et al., *Micro-Batch Training with Batch-Channel Normalization and Weight
    Standardization* (arXiv 1903.10520), section 3; Brock, De & Smith, *Characterizing signal
    propagation to close the performance gap in unnormalized ResNets* (arXiv 2101.08692), section 4
    (scaled), and the learned gain of *NFNets* (arXiv 2102.06171), section 2.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.StandardizedConv(3, 8, (3, 3), rngs=nnx.Rngs(0))(jnp.ones((1, 9, 9, 3))).shape
    (1, 9, 9, 8)

    Raises:
      ValueError: as `Conv`; filters of one weight, which standardise to 0.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = 1,
        *,
        scaled: bool = False,
        gamma: float = 1.0,
        epsilon: float = 1e-6,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ):
        super().__init__(
            in_features,
            out_features,
            kernel_size,
            strides,
            param_dtype=param_dtype,
            rngs=rngs,
            **kwargs,
        )
        if self.kernel[..., 0].size < 2:
            raise ValueError(
                "StandardizedConv expects filters of at least 2 weights. "
                f"Got a kernel of shape {self.kernel.shape}."
            )
        self.gain: Any = nnx.data(None)
        if scaled:
            self.gain = nnx.Param(jnp.ones((out_features,), param_dtype))
        self.scaled = scaled
        self.gamma = gamma
        self.epsilon = epsilon

    def __call__(
        self, inputs: Float[Array, "..."], out_sharding: Any = None
    ) -> Float[Array, "..."]:
        """(*batch, *spatial, in) -> (*batch, *spatial', out); the batch may be absent."""
        view = object.__new__(type(self))
        vars(view).update(vars(self) | {"kernel": self.standardized()})
        return Conv.__call__(view, inputs, out_sharding)

    def standardized(self) -> jax.Array:
        """The kernel that convolves, (*kernel_size, in / groups, out), float32 or wider."""
        kernel = self.kernel[...]
        kernel = kernel.astype(float32_or_wider(kernel.dtype))
        filters = tuple(range(kernel.ndim - 1))
        kernel = kernel - kernel.mean(filters)
        a = lax.rsqrt((kernel * kernel).mean(filters) + self.epsilon)
        if self.gain is not None:
            a = a * self.gain[...].astype(a.dtype) * (self.gamma * kernel[..., 0].size ** -0.5)
        return kernel * a
