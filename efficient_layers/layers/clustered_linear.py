# SPDX-License-Identifier: Apache-2.0
"""Linear layer whose weights share the few numbers of a codebook."""

from typing import Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.clustered_weight import ClusteredWeight, clustered, fill
from efficient_layers.layers.dense import Dense, kernel_of
from efficient_layers.ops.kmeans import Start
from efficient_layers.ops.members import rows_times


class ClusteredLinear(ClusteredWeight, Dense):
    """y = x W + bias with W[i, o] = codebook[g(o)][codes[i, o]].

    2^bits numbers a group of output channels (`groups` equal runs g(o)), and a code of `bits` bits
    a weight, packed: at 4 bits an eighth of the bytes. The codebook trains, the codes do not: the
    gradient of a centroid is the sum over the weights that share it. With `keep_zeros`, code 0
    means exactly 0 and stays so. W is made anew at every call: bytes are saved, no time; `merge()`
    writes it out. `from_linear` clusters by k-means; a new layer rounds a random kernel to evenly
    spaced numbers. `params` counts a code as a weight, as in integer layers, and the codebook
    because it trains, as learned steps are.

    weights = in_features * out_features
    params = weights + groups * (2**bits - keep_zeros) + out_features * use_bias
    MACs = positions * weights

    Reference: Han et al., *Deep Compression* (arXiv 1510.00149), section 3. Differs from the paper:
    a codebook may be a group's; centroids without a weight move to the weight farthest from its
    own. Cho et al., *DKM* (arXiv 2108.12659), whose assignments train, too, is not built.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> dense = nnx.Linear(8, 6, rngs=nnx.Rngs(0))
    >>> el.layers.ClusteredLinear.from_linear(dense, bits=3)(jnp.ones((3, 8))).shape
    (3, 6)

    Raises:
      ValueError: bits outside 2 ... 8; groups that do not divide out_features; an input whose last
        axis is not in_features.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bits: int = 4,
        groups: int = 1,
        keep_zeros: bool = False,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype
        )
        self._set_clusters(bits, groups, keep_zeros, out_features)
        draw = nnx.initializers.lecun_normal()
        self._draw(draw(rngs.params(), (in_features, out_features), param_dtype))

    @classmethod
    def from_linear(
        cls,
        linear: nnx.Linear,
        *,
        bits: int = 4,
        groups: int = 1,
        keep_zeros: bool = False,
        start: Start = "linear",
        seed: int = 0,
    ) -> Self:
        """`linear`'s weights, each replaced by its centroid; `start` as in `ops.kmeans`.

        Raises:
          ValueError: bits, groups, start out of range; weights that are not finite.
          TypeError: `linear` is no `nnx.Linear`.
        """
        kernel = kernel_of(linear)
        settings = {"bits": bits, "groups": groups, "keep_zeros": keep_zeros}
        layer = cls._like(linear, {}, **settings)
        fill(layer, *clustered(kernel, **settings, start=start, seed=seed))  # type: ignore[arg-type]
        return layer

    def _weights(self) -> tuple[jax.Array, ...]:
        return (self.codebook[...],)

    def _map(self, rows: jax.Array, codebook: jax.Array) -> jax.Array:
        return rows_times(rows, self._kernel(codebook))

    def _kernel(self, codebook: jax.Array) -> jax.Array:
        return self._picked(codebook, self.codes[...])
