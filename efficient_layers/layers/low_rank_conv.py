# SPDX-License-Identifier: Apache-2.0
"""Convolutions whose kernel is a product of smaller ones: spatial separation, Tucker-2, CP."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.layers.conv import Conv, centred
from efficient_layers.ops.kernel_factors import (
    check_rank,
    cp_factors,
    cp_limit,
    spatial_factors,
    spatial_limit,
    tucker2_factors,
)

Sizes = int | Sequence[int]


class LowRankConv(nnx.Module):
    """What the three share: `parts` one after the other, the last of them with the bias."""

    parts: tuple[str, ...] = ()

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 o"]:
        """(*batch, h, w, in) -> (*batch, h2, w2, out); the batch may be absent."""
        with jax.named_scope(type(self).__name__):
            for name in self.parts:
                x = getattr(self, name)(x)
            return x

    @classmethod
    def _like(cls, conv: nnx.Conv, factors: NamedTuple, **ranks: Any) -> Self:
        """A layer with the settings and the bias of `conv`, its kernels from `factors`, by name."""

        def made() -> Any:
            return cls(
                conv.in_features,
                conv.out_features,
                conv.kernel_size,
                conv.strides or 1,
                kernel_dilation=conv.kernel_dilation or 1,
                padding=conv.padding,
                use_bias=conv.bias is not None,
                dtype=conv.dtype,
                param_dtype=conv.param_dtype,
                rngs=nnx.Rngs(0),
                **ranks,
            )  # type: ignore[call-arg]

        layer = nnx.eval_shape(made)  # every parameter is replaced: none is drawn
        for name, kernel in factors._asdict().items():
            getattr(layer, name).kernel = nnx.Param(jnp.asarray(kernel, conv.param_dtype))
        if conv.bias is not None:
            getattr(layer, cls.parts[-1]).bias = nnx.Param(jnp.array(conv.bias[...]))
        return layer


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
        axes = _Axes.of(kernel_size, strides, kernel_dilation, padding)
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
        return cls._like(conv, spatial_factors(_kernel_of(conv), rank), rank=rank)


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
        axes = _Axes.of(kernel_size, strides, kernel_dilation, padding)
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
        return cls._like(conv, tucker2_factors(_kernel_of(conv), ranks), ranks=ranks)


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
        axes = _Axes.of(kernel_size, strides, kernel_dilation, padding)
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
        return cls._like(conv, cp_factors(_kernel_of(conv), rank, sweeps=sweeps), rank=rank)


@dataclass(frozen=True)
class _Axes:
    """Settings of a convolution, a pair each; padding is a name or (low, high) pairs."""

    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    kernel_dilation: tuple[int, int]
    padding: Any

    @classmethod
    def of(cls, kernel_size: Sizes, strides: Any, kernel_dilation: Any, padding: Any) -> "_Axes":
        """From what `Conv` takes; padding None is torch's."""
        kernel, dilation = _pair(kernel_size), _pair(kernel_dilation)
        if padding is None:
            padding = centred(kernel, dilation)
        if not isinstance(padding, str):
            padding = tuple(_pair(low_high) for low_high in _pair(padding))
        return cls(kernel, _pair(strides), dilation, padding)

    def along(self, axis: int) -> dict[str, Any]:
        """The settings along `axis`, neutral ones along the other."""

        def part(pair: Any, neutral: Any) -> tuple:
            return (pair[0], neutral) if axis == 0 else (neutral, pair[1])

        return {
            "kernel_size": part(self.kernel_size, 1),
            "strides": part(self.strides, 1),
            "kernel_dilation": part(self.kernel_dilation, 1),
            # A name ("SAME", "VALID", ...) pads an axis of kernel size 1 by nothing.
            "padding": self.padding
            if isinstance(self.padding, str)
            else part(self.padding, (0, 0)),
        }

    def whole(self) -> dict[str, Any]:
        return {
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "kernel_dilation": self.kernel_dilation,
            "padding": self.padding,
        }


def _pair(value: Any) -> tuple:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2:
        raise ValueError(f"A low-rank convolution has two dimensions. Got {value} for their sizes.")
    return pair


def _kernel_of(conv: nnx.Conv) -> np.ndarray:
    """The kernel in float64, of a convolution that the three layers can stand for."""
    if not isinstance(conv, nnx.Conv):
        raise TypeError(f"from_conv expects an nnx.Conv. Got {type(conv).__name__}.")
    kernel = np.asarray(conv.kernel[...], np.float64)
    dilated = conv.input_dilation not in (None, 1, (1, 1))
    if kernel.ndim != 4 or conv.feature_group_count != 1 or dilated or conv.mask is not None:
        raise ValueError(
            "from_conv expects a two-dimensional convolution without groups, input dilation and "
            f"mask. Got a kernel of {kernel.shape}, {conv.feature_group_count} groups, "
            f"input_dilation={conv.input_dilation}, mask={conv.mask}."
        )
    return kernel
