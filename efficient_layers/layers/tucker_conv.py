# SPDX-License-Identifier: Apache-2.0
"""Convolution between fewer channels: 1x1, a k x k core, 1x1."""

from typing import Any, Self

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.conv import Conv
from efficient_layers.layers.low_rank_conv import Axes, LowRankConv, Sizes, kernel_of
from efficient_layers.ops.kernel_factors import check_rank, tucker2_factors


class TuckerConv(LowRankConv):
    """y = expand(core(reduce(x))): 1x1 to ranks[0] channels, k x k to ranks[1], 1x1 to the outputs.

    The kernel is K[y, x, i, o] = sum_{r, s} reduce[i, r] core[y, x, r, s] expand[s, o]; `core`
    takes strides, dilation and padding (torch's unless given), `expand` has the bias. All are drawn
    with variance 1 / fan-in.

    taps = prod(kernel_size)
    weights = ranks[0] * in_features + ranks[1] * (taps * ranks[0] + out_features)
    params = weights + (out_features if use_bias else 0)
    MACs = h * w * ranks[0] * in_features + h2 * w2 * ranks[1] * (taps * ranks[0] + out_features)

    Reference: Kim et al., *Compression of Deep Convolutional Neural Networks for Fast and Low Power
    Mobile Applications* (arXiv 1511.06530), section 3.1. The ranks are given; the paper finds them
    by variational Bayes.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.TuckerConv(8, 12, 3, ranks=(4, 5), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 5, 5, 8))).shape
    (1, 5, 5, 12)

    Raises:
      ValueError: a size below 1; ranks above (in, out); an input of wrong rank or channels.
      TypeError: an input of integers.
    """

    parts = ("reduce", "core", "expand")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Sizes = 3,
        strides: Sizes = 1,
        *,
        ranks: tuple[int, int],
        kernel_dilation: Sizes = 1,
        padding: Any = None,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        axes = Axes.of(kernel_size, strides, kernel_dilation, padding)
        self.kernel_size, self.strides, self.ranks = axes.kernel_size, axes.strides, tuple(ranks)
        inner, outer = ranks
        check_rank("TuckerConv", inner, in_features, "in_features")
        check_rank("TuckerConv", outer, out_features, "out_features")
        kept: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.reduce = Conv(in_features, inner, (1, 1), use_bias=False, **kept)
        self.core = Conv(inner, outer, use_bias=False, **axes.whole(), **kept)
        self.expand = Conv(outer, out_features, (1, 1), use_bias=use_bias, **kept)

    @classmethod
    def from_conv(cls, conv: nnx.Conv, ranks: tuple[int, int]) -> Self:
        """`conv` with its kernel in the leading singular bases of its channels (truncated HOSVD).

        Exact at ranks (in, out); the error falls with either rank.

        Raises:
          ValueError: ranks above (in, out); groups; not two-dimensional.
        """
        return cls._like(conv, tucker2_factors(kernel_of(conv), ranks), ranks=ranks)
