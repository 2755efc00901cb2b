# SPDX-License-Identifier: Apache-2.0
"""Convolution as a sum of separable terms: 1x1, depthwise k x 1 and 1 x k, 1x1."""

from typing import Any, Self

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.conv import Conv
from efficient_layers.layers.low_rank_conv import Axes, LowRankConv, Sizes, kernel_of
from efficient_layers.ops.kernel_factors import check_rank, cp_factors, cp_limit


class CPConv(LowRankConv):
    """y = expand(horizontal(vertical(reduce(x)))): 1x1, depthwise k x 1 and 1 x k, 1x1.

    `rank` channels wide inside. The kernel is K[y, x, i, o] = sum_r reduce[i, r] vertical[y, r]
    horizontal[x, r] expand[r, o]. `vertical` takes the strides along h, `horizontal` along w,
    padding as torch's unless given; `expand` has the bias. All are drawn with variance 1 / fan-in.

    weights = rank * (in_features + sum(kernel_size) + out_features)
    params = weights + (out_features if use_bias else 0)
    last = kernel_size[1] + out_features
    MACs = rank * (h * w * in_features + h2 * w * kernel_size[0] + h2 * w2 * last)

    Reference: Lebedev et al., *Speeding-up Convolutional Neural Networks Using Fine-tuned
    CP-Decomposition* (arXiv 1412.6553), section 3.3. `from_conv` fits by alternating least squares
    in place of the paper's non-linear least squares.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.CPConv(8, 12, 3, rank=4, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 5, 8))).shape
    (1, 5, 5, 12)

    Raises:
      ValueError: a size below 1; a rank above kh kw min(in, out); an input of other rank or
        channels.
      TypeError: an input of integers.
    """

    parts = ("reduce", "vertical", "horizontal", "expand")

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
        limit = cp_limit((*axes.kernel_size, in_features, out_features))
        check_rank("CPConv", rank, limit, "kh kw min(in, out)")
        kept: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        depthwise = {"feature_group_count": rank, "use_bias": False, **kept}
        self.reduce = Conv(in_features, rank, (1, 1), use_bias=False, **kept)
        self.vertical = Conv(rank, rank, **axes.along(0), **depthwise)
        self.horizontal = Conv(rank, rank, **axes.along(1), **depthwise)
        self.expand = Conv(rank, out_features, (1, 1), use_bias=use_bias, **kept)

    @classmethod
    def from_conv(cls, conv: nnx.Conv, rank: int, *, sweeps: int = 100) -> Self:
        """`conv` with its kernel as `rank` terms, by `sweeps` of alternating least squares.

        Exact at rank kh kw min(in, out), for random kernels already at about half of it. Seconds
        for hundreds of channels.

        Raises:
          ValueError: a rank above kh kw min(in, out); groups; not two-dimensional.
        """
        return cls._like(conv, cp_factors(kernel_of(conv), rank, sweeps=sweeps), rank=rank)
