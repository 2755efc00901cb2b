# SPDX-License-Identifier: Apache-2.0
"""Linear layer whose kernel is a product of a tall and a wide matrix."""

from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.dense import Dense, kernel_of
from efficient_layers.ops.kernel_factors import check_rank, svd_energy, svd_factors


class LowRankLinear(Dense):
    """y = (x u) v + bias, u of shape (in, rank), v of shape (rank, out).

    Both factors are drawn with variance 1 / fan-in, so outputs keep the input's variance.
    `from_linear` takes them from the singular value decomposition, the best of its rank in the
    Frobenius and the spectral norm (Eckart & Young 1936), with the singular values' square roots
    on both sides. It pays below rank in out / (in + out); above that it is larger than the
    `nnx.Linear` it replaces (allowed, since it is sometimes wanted while training).

    params = rank * (in_features + out_features) + out_features * use_bias
    MACs = positions * rank * (in_features + out_features)

    Reference: Denton et al., *Exploiting Linear Structure Within Convolutional Networks for
    Efficient Evaluation* (arXiv 1404.0736), section 3.2; Sainath et al., *Low-rank matrix
    factorization for deep neural network training with high-dimensional output targets*, 2013.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.LowRankLinear(8, 6, rank=2, rngs=nnx.Rngs(0))(jnp.ones((3, 8))).shape
    (3, 6)

    Raises:
      ValueError: rank outside 1 ... min(in, out); an input whose last axis is not in_features.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: int,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype
        )
        limit = min(in_features, out_features)
        check_rank("LowRankLinear", rank, limit, "the smaller of in_features and out_features")
        draw = nnx.initializers.lecun_normal()
        self.u = nnx.Param(draw(rngs.params(), (in_features, rank), param_dtype))
        self.v = nnx.Param(draw(rngs.params(), (rank, out_features), param_dtype))
        self.rank = rank

    @classmethod
    def from_linear(
        cls,
        linear: nnx.Linear,
        *,
        rank: int | None = None,
        energy: float | None = None,
        gram: np.ndarray | None = None,
    ) -> Self:
        """The nearest layer of `rank`, or of the least rank that keeps `energy`.

        Args:
          energy: share of the kernel's squared singular values to keep, in (0, 1].
          gram: X^T X of the inputs: nearest in the outputs instead (`svd_factors`).

        Raises:
          ValueError: not exactly one of the two is given, or it is out of range.
          TypeError: `linear` is no `nnx.Linear`.
        """
        if (rank is None) == (energy is None):
            raise ValueError(f"from_linear expects rank or energy. Got {rank=}, {energy=}.")
        kernel = kernel_of(linear)
        kept = _rank_for(svd_energy(kernel, gram=gram), energy) if rank is None else rank
        u, v = svd_factors(kernel, kept, gram=gram)
        return cls._like(linear, {"u": u, "v": v}, rank=kept)

    def _weights(self) -> tuple[jax.Array, ...]:
        return self.u[...], self.v[...]

    def _map(self, rows: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
        return (rows @ u) @ v

    def _kernel(self, u: jax.Array, v: jax.Array) -> jax.Array:
        return u @ v


def _rank_for(kept: np.ndarray, energy: float | None) -> int:
    """The least rank that keeps `energy`."""
    if energy is None or not 0 < energy <= 1:
        raise ValueError(f"from_linear expects an energy in (0, 1]. Got {energy}.")
    # Of a sum in floating point, the last share may fall short of 1 by rounding.
    return min(int(np.searchsorted(kept, energy)) + 1, len(kept))
