# SPDX-License-Identifier: Apache-2.0
"""Anti-aliased downsampling: blur, then keep every second position."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.ops.blur_pool import PadMode, blur_pool


class BlurPool(nnx.Module):
    """y[i, j] = sum_{t, u} x[s i + t, s j + u] f[t] f[u], f = binomial(k - 1, .) / 2^(k - 1).

    A fixed filter without parameters, for before a stride: a strided convolution or a max pooling
    at stride 1, followed by `BlurPool`, hardly changes when its input shifts by a pixel. Kernel 1
    only skips. The border is padded by (s + k - 2) // 2, mirrored by default.

    params = 0
    MACs = h2 * w2 * c * kernel_size ** 2

    Reference: Zhang, *Making Convolutional Networks Shift-Invariant Again* (arXiv 1904.11486),
    section 3.2. Kernels 2, 3, 5 are its Rect-2, Tri-3, Bin-5; padding is that of timm's
    `BlurPool2d`.

    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.BlurPool()(jnp.ones((1, 9, 8, 3))).shape
    (1, 5, 4, 3)

    Raises:
      ValueError: a size below 1; an input without h, w and c.
      TypeError: an input of integers.
    """

    def __init__(self, kernel_size: int = 3, strides: int = 2, *, pad_mode: PadMode = "reflect"):
        if min(kernel_size, strides) < 1:
            raise ValueError(
                "BlurPool expects kernel_size and strides of at least 1. "
                f"Got {kernel_size} and {strides}."
            )
        if pad_mode not in ("reflect", "edge", "constant"):
            raise ValueError(
                f'BlurPool expects a pad_mode of "reflect", "edge" or "constant". Got {pad_mode!r}.'
            )
        self.kernel_size = kernel_size
        self.strides = strides
        self.pad_mode = pad_mode

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 c"]:
        if x.ndim < 3:
            raise ValueError(
                f"BlurPool expects an input of shape (*batch, h, w, c). Got {x.shape}."
            )
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"BlurPool expects a floating-point input. Got {x.dtype}.")
        with jax.named_scope("BlurPool"):
            return blur_pool(x, self.kernel_size, self.strides, self.pad_mode)
