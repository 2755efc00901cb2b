# SPDX-License-Identifier: Apache-2.0
"""A convolution and the batch normalisation after it as one convolution with bias."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def fold_batch_norm(
    kernel: Float[Array, "*k i o"],
    mean: Float[Array, " o"],
    var: Float[Array, " o"],
    scale: Float[Array, " o"] | None,
    bias: Float[Array, " o"] | None,
    *,
    epsilon: float,
) -> tuple[Float[Array, "*k i o"], Float[Array, " o"]]:
    """kernel' = kernel g and bias' = bias - mean g, with g = scale / sqrt(var + epsilon).

    Then x * kernel' + bias' = BatchNorm(x * kernel), for any strides, padding and groups. Computed
    in float32 and returned so. A missing scale is 1, a missing bias 0.

    Reference: Jacob et al., *Quantization and Training of Neural Networks* (arXiv 1712.05877),
    section 3.2, equation 14.

    >>> import jax.numpy as jnp
    >>> from efficient_layers.ops.fold_batch_norm import fold_batch_norm
    >>> one = jnp.ones(1)
    >>> kernel, bias = fold_batch_norm(jnp.ones((1, 1, 1, 1)), one, 3 * one, one, one, epsilon=1.0)
    >>> float(kernel[0, 0, 0, 0]), float(bias[0])
    (0.5, 0.5)
    """
    gain = jax.lax.rsqrt(var.astype(jnp.float32) + epsilon)
    if scale is not None:
        gain = gain * scale.astype(jnp.float32)
    shift = -mean.astype(jnp.float32) * gain
    if bias is not None:
        shift = shift + bias.astype(jnp.float32)
    return kernel.astype(jnp.float32) * gain, shift
