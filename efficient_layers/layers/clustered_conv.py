# SPDX-License-Identifier: Apache-2.0
"""Convolution whose weights share the few numbers of a codebook."""

from collections.abc import Sequence
from typing import Any, Self

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers.clustered_weight import ClusteredWeight, clustered, fill
from efficient_layers.layers.quantised_conv import StoredConv, sizes_of
from efficient_layers.ops.kmeans import Start
from efficient_layers.ops.precision import result_dtype


class ClusteredConv(ClusteredWeight, StoredConv):
    """y = x * kernel + bias with kernel[..., o] = codebook[g(o)][codes[..., o]].

    A `ClusteredLinear` for convolutions: any number of spatial axes, strides, dilation, groups of
    channels (`feature_group_count`; depthwise, too), zero padding, channels last. `groups` are the
    codebooks. The kernel is made anew at every call: bytes are saved, no time.

    weights = prod(kernel_size) * in_features // feature_group_count * out_features
    params = weights + groups * (2**bits - keep_zeros) + out_features * use_bias
    MACs = positions * weights

    Reference: Han et al., *Deep Compression* (arXiv 1510.00149), section 3. Differs from the paper:
    as `ClusteredLinear`.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> conv = el.layers.Conv(3, 8, (3, 3), strides=2, rngs=nnx.Rngs(0))
    >>> el.layers.ClusteredConv.from_conv(conv, bits=3)(jnp.ones((1, 9, 9, 3))).shape
    (1, 5, 5, 8)

    Raises:
      ValueError: sizes, feature groups or padding as in `nnx.Conv`; bits outside 2 ... 8; groups
        that do not divide out_features; an input of wrong rank or channels.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        *,
        bits: int = 4,
        groups: int = 1,
        keep_zeros: bool = False,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ):
        self._set_clusters(bits, groups, keep_zeros, out_features)
        super().__init__(in_features, out_features, kernel_size, strides, rngs=rngs, **kwargs)

    @classmethod
    def from_conv(
        cls,
        conv: nnx.Conv,
        *,
        bits: int = 4,
        groups: int = 1,
        keep_zeros: bool = False,
        start: Start = "linear",
        seed: int = 0,
    ) -> Self:
        """`conv`'s weights, each replaced by its centroid; `start` as in `ops.kmeans`.

        Raises:
          ValueError: bits, groups, start out of range; weights that are not finite; what `conv` has
            and this layer has not (circular padding, masks, dilated inputs).
          TypeError: `conv` is no `nnx.Conv`.
        """
        settings: dict[str, Any] = {"bits": bits, "groups": groups, "keep_zeros": keep_zeros}
        layer = nnx.eval_shape(lambda: cls(**sizes_of(conv), **settings, rngs=nnx.Rngs(0)))
        kernel = np.asarray(conv.kernel[...], np.float64)
        fill(layer, *clustered(kernel, **settings, start=start, seed=seed))
        if conv.bias is not None:
            layer.bias.set_value(conv.bias[...])
        return layer

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 o"]:
        """(*b, *spatial, in) -> (*b, *spatial', out)."""
        rows = self._batched(x)
        codebook = self.codebook[...]
        dtype = result_dtype(self.dtype, x, codebook)
        with jax.named_scope(type(self).__name__):
            kernel = self._picked(codebook.astype(dtype), self.codes[...])
            return self._finish(self._float_conv(rows.astype(dtype), kernel), x, dtype)

    def _take(self, kernel: jax.Array) -> None:
        self._draw(kernel)
