# SPDX-License-Identifier: Apache-2.0
"""Linear layer of two block-diagonal factors with a permutation between: every output sees every
input at a fraction of the weights."""

from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.dense import Dense, check_blocks, kernel_of
from efficient_layers.ops.blocks import monarch


class MonarchLinear(Dense):
    """y = x R P L P' + bias: block-diagonal R and L, `blocks` blocks each, stride permutations P.

    Input i p is number p of block i, output q j is number q of block j (a stride apart). Of the
    kernel, the part from input block i to output block j is first[i, :, j r] second[j, i r, :], a
    matrix of rank `rank`: with blocks = sqrt(in) and rank 1 the Monarch matrices of the paper. The
    kernel as a whole may have full rank. Both factors are drawn with variance 1 / fan-in, so
    outputs keep the input's variance.

    `from_linear` is the nearest such kernel in the Frobenius norm: the best approximation of
    `rank` of every part (i, j), by singular value decomposition. It costs what a `LowRankLinear`
    of rank `blocks * rank` does.

    params = blocks * rank * (in_features + out_features) + out_features * use_bias
    MACs = positions * blocks * rank * (in_features + out_features)

    Differs from the paper: sizes need not be squares or equal, parts may have a rank above 1, and
    blocks have to divide both sizes (the authors' code pads).

    Reference: Dao et al., *Monarch: Expressive Structured Matrices for Efficient and Accurate
    Training* (arXiv 2204.00595), section 3.1, projection: section 3.3, algorithm 1.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.MonarchLinear(8, 6, blocks=2, rngs=nnx.Rngs(0))(jnp.ones((3, 8))).shape
    (3, 6)

    Raises:
      ValueError: blocks that do not divide both sizes; a rank above that of a part; an input
        whose last axis is not in_features.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        blocks: int,
        rank: int = 1,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype
        )
        _check(in_features, out_features, blocks, rank)
        draw = nnx.initializers.lecun_normal(batch_axis=0)
        inner, keys = blocks * rank, (rngs.params(), rngs.params())
        first, second = (
            (blocks, in_features // blocks, inner),
            (blocks, inner, out_features // blocks),
        )
        self.first = nnx.Param(draw(keys[0], first, param_dtype))
        self.second = nnx.Param(draw(keys[1], second, param_dtype))
        self.blocks = blocks
        self.rank = rank

    @classmethod
    def from_linear(cls, linear: nnx.Linear, *, blocks: int, rank: int = 1) -> Self:
        """The nearest Monarch kernel; exact where `linear`'s is one.

        Raises:
          ValueError: blocks or rank as in the constructor.
          TypeError: `linear` is no `nnx.Linear`.
        """
        kernel = kernel_of(linear)
        size, out = kernel.shape
        _check(size, out, blocks, rank)
        parts = kernel.reshape(blocks, size // blocks, out // blocks, blocks)  # i p q j
        left, values, right = np.linalg.svd(parts.transpose(0, 3, 1, 2), full_matrices=False)
        root = np.sqrt(values[..., :rank])
        left = left[..., :rank] * root[..., None, :]  # i j p r
        right = root[..., None] * right[..., :rank, :]  # i j r q
        factors = {
            "first": left.transpose(0, 2, 1, 3).reshape(blocks, size // blocks, -1),
            "second": right.transpose(1, 0, 2, 3).reshape(blocks, blocks * rank, -1),
        }
        return cls._like(linear, factors, blocks=blocks, rank=rank)

    def _weights(self) -> tuple[jax.Array, ...]:
        return self.first[...], self.second[...]

    def _map(self, rows: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
        return monarch(rows, first, second)

    def _kernel(self, first: jax.Array, second: jax.Array) -> jax.Array:
        return monarch(jnp.eye(self.in_features, dtype=first.dtype), first, second)


def _check(in_features: int, out_features: int, blocks: int, rank: int) -> None:
    check_blocks("MonarchLinear", blocks, in_features=in_features, out_features=out_features)
    most = min(in_features, out_features) // blocks
    if not 1 <= rank <= most:
        raise ValueError(
            f"MonarchLinear expects a rank from 1 to {most}, the smaller side of a part of "
            f"{in_features // blocks} x {out_features // blocks}. Got {rank}."
        )
