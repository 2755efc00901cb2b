# SPDX-License-Identifier: Apache-2.0
"""Linear layer whose many weights share few numbers, told apart by a hash."""

from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.dense import Dense, kernel_of
from efficient_layers.ops.hashing import hashed_matrix, hashed_places


class HashedLinear(Dense):
    """y = x W + bias with W[i, o] = sign(i, o) weight[bucket(i, o)].

    Bucket and sign are a fixed hash of (seed, i, o), the same in every process; `buckets` numbers
    are all that is stored, and the gradient of each is the sum over the entries that share it. W
    is made anew at every call: it saves bytes and download, no time; `merge()` writes it out. The
    weights are drawn with variance 1 / in, so outputs keep the input's variance (the signs make
    sharing entries uncorrelated). `from_linear` takes in every bucket the mean of its entries,
    the nearest such kernel in the Frobenius norm.

    params = buckets + out_features * use_bias
    MACs = positions * in_features * out_features

    Differs from the paper: index and sign come from disjoint bits of one hash. Layers of one model
    want different seeds.

    Reference: Chen et al., *Compressing Neural Networks with the Hashing Trick* (arXiv
    1504.04788), sections 4.1 to 4.3.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.HashedLinear(8, 6, buckets=12, rngs=nnx.Rngs(0))(jnp.ones((3, 8))).shape
    (3, 6)

    Raises:
      ValueError: buckets outside 1 ... in out; an input whose last axis is not in_features.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        buckets: int,
        seed: int = 0,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype
        )
        if not 1 <= buckets <= in_features * out_features:
            raise ValueError(
                f"HashedLinear expects buckets from 1 to {in_features * out_features}, the "
                f"entries of a {in_features} x {out_features} kernel. Got {buckets}."
            )
        draw = nnx.initializers.normal(in_features**-0.5)
        self.weight = nnx.Param(draw(rngs.params(), (buckets,), param_dtype))
        self.buckets = buckets
        self.seed = seed

    @classmethod
    def from_linear(cls, linear: nnx.Linear, *, buckets: int, seed: int = 0) -> Self:
        """The nearest layer with these buckets; one that no entry falls into is 0.

        Raises:
          ValueError: buckets as in the constructor.
          TypeError: `linear` is no `nnx.Linear`.
        """
        kernel = kernel_of(linear)
        layer = cls._like(linear, {"weight": jnp.zeros((buckets,))}, buckets=buckets, seed=seed)
        index, sign = (np.asarray(part) for part in hashed_places(kernel.shape, buckets, seed=seed))
        total = np.bincount(index.ravel(), (sign * kernel).ravel(), minlength=buckets)
        members = np.bincount(index.ravel(), minlength=buckets)
        mean = total / np.maximum(members, 1)
        layer.weight.set_value(jnp.asarray(mean, linear.param_dtype))
        return layer

    def _weights(self) -> tuple[jax.Array, ...]:
        return (self.weight[...],)

    def _map(self, rows: jax.Array, weight: jax.Array) -> jax.Array:
        return rows @ self._kernel(weight)

    def _kernel(self, weight: jax.Array) -> jax.Array:
        return hashed_matrix(weight, (self.in_features, self.out_features), seed=self.seed)
