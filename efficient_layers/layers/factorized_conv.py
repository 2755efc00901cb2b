# SPDX-License-Identifier: Apache-2.0
"""Convolution to few channels, then 1x1: the matrix of taps and inputs by outputs, of low rank."""

from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.conv import Conv
from efficient_layers.layers.low_rank_conv import Axes, LowRankConv, Sizes, kernel_of
from efficient_layers.ops.kernel_factors import check_rank, svd_factors, svd_limit


class FactorizedConv(LowRankConv):
    """y = expand(reduce(x)): a k x k convolution to `rank` channels, then 1x1 to the outputs.

    The kernel is K[y, x, i, o] = sum_r reduce[y, x, i, r] expand[r, o]. `reduce` takes strides,
    dilation and padding (torch's unless given), `expand` has the bias. Both are drawn with variance
    1 / fan-in. A `FactorizedLinear` for convolutions; of a 1x1 convolution, two of them.

    taps = prod(kernel_size)
    weights = rank * (taps * in_features + out_features)
    params = weights + (out_features if use_bias else 0)
    MACs = h2 * w2 * weights

    Reference: Zhang et al., *Accelerating Very Deep Convolutional Networks for Classification and
    Detection* (arXiv 1505.06798), section 3.1. Differs from the paper: the outputs' mean is not
    taken off (with `gram`), and the non-linearity behind is not considered.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.FactorizedConv(8, 12, 3, rank=4, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 5, 8))).shape
    (1, 5, 5, 12)

    Raises:
      ValueError: a size below 1; a rank above min(kh kw in, out); an input of other rank or
        channels.
      TypeError: an input of integers.
    """

    parts = ("reduce", "expand")

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
        limit = svd_limit((*axes.kernel_size, in_features, out_features))
        check_rank("FactorizedConv", rank, limit, "the smaller of kh kw in and out")
        kept: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.reduce = Conv(in_features, rank, use_bias=False, **axes.whole(), **kept)
        self.expand = Conv(rank, out_features, (1, 1), use_bias=use_bias, **kept)

    @classmethod
    def from_conv(cls, conv: nnx.Conv, rank: int, *, gram: np.ndarray | None = None) -> Self:
        """The layer nearest to `conv` in the Frobenius norm of the kernel; exact at full rank.

        Args:
          gram: X^T X of the patches that go in (`compress.moments`): nearest in the outputs
            instead.

        Raises:
          ValueError: a rank above min(kh kw in, out); groups; not two-dimensional.
        """
        return cls._like(conv, svd_factors(kernel_of(conv), rank, gram=gram), rank=rank)
