# SPDX-License-Identifier: Apache-2.0
"""Convolution along one axis after the other: k x 1, then 1 x k."""

from typing import Any, Self

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.conv import Conv
from efficient_layers.layers.low_rank_conv import Axes, LowRankConv, Sizes, kernel_of
from efficient_layers.ops.kernel_factors import check_rank, spatial_factors, spatial_limit


class SpatialSeparableConv(LowRankConv):
    """y = horizontal(vertical(x)): k x 1 to `rank` channels, then 1 x k to the outputs.

    The kernel is K[y, x, i, o] = sum_r vertical[y, i, r] horizontal[x, r, o]. The first takes the
    strides along h, the second along w; the second has the bias. `padding` is torch's, (k - 1) d /
    2 on both sides, unless given. Both kernels are drawn with variance 1 / fan-in, so outputs keep
    the input's variance.

    weights = rank * (kernel_size[0] * in_features + kernel_size[1] * out_features)
    params = weights + (out_features if use_bias else 0)
    MACs = h2 * rank * (w * kernel_size[0] * in_features + w2 * kernel_size[1] * out_features)

    Reference: Jaderberg et al., *Speeding up Convolutional Neural Networks with Low Rank
    Expansions* (arXiv 1405.3866), section 2.2, scheme 2.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.SpatialSeparableConv(8, 12, 3, rank=4, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 5, 8))).shape
    (1, 5, 5, 12)

    Raises:
      ValueError: a size below 1; a rank above min(kh in, kw out); an input of other rank or
        channels.
      TypeError: an input of integers.
    """

    parts = ("vertical", "horizontal")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Sizes = 3,
        strides: Sizes = 1,
        *,
        rank: int,
        kernel_dilation: Sizes = 1,
        padding: Any = None,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        axes = Axes.of(kernel_size, strides, kernel_dilation, padding)
        self.kernel_size, self.strides, self.rank = axes.kernel_size, axes.strides, rank
        limit = spatial_limit((*axes.kernel_size, in_features, out_features))
        check_rank("SpatialSeparableConv", rank, limit, "the smaller of kh in and kw out")
        kept: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.vertical = Conv(in_features, rank, use_bias=False, **axes.along(0), **kept)
        self.horizontal = Conv(rank, out_features, use_bias=use_bias, **axes.along(1), **kept)

    @classmethod
    def from_conv(cls, conv: nnx.Conv, rank: int) -> Self:
        """The layer nearest to `conv` in the Frobenius norm of the kernel; exact at full rank.

        Raises:
          ValueError: a rank above min(kh in, kw out); groups; not two-dimensional.
        """
        return cls._like(conv, spatial_factors(kernel_of(conv), rank), rank=rank)
