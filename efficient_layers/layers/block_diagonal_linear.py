# SPDX-License-Identifier: Apache-2.0
"""Linear layer whose kernel is block-diagonal: features in groups that do not see each other."""

from typing import Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.dense import Dense, check_blocks, kernel_of
from efficient_layers.ops.blocks import block_diagonal


class BlockDiagonalLinear(Dense):
    """y[k q] = sum_p x[k p] kernel[k, p, q] + bias[k q]: `blocks` small kernels side by side.

    Feature k p is number p of block k. Nothing passes between blocks: mix them elsewhere
    (`MonarchLinear` does it by a permutation, ShuffleNet by shuffling channels). The kernel is
    drawn with variance 1 / (in / blocks), so outputs keep the input's variance. `from_linear`
    keeps the blocks on the diagonal, the nearest block-diagonal kernel.

    params = in_features * out_features // blocks + out_features * use_bias
    MACs = positions * in_features * out_features // blocks

    Reference: Xie et al., *Aggregated Residual Transformations for Deep Neural Networks* (arXiv
    1611.05431), section 3.2, for grouped layers; Dao et al., *Monarch* (arXiv 2204.00595),
    section 3.1, for the matrices.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.BlockDiagonalLinear(8, 6, blocks=2, rngs=nnx.Rngs(0))(jnp.ones((3, 8))).shape
    (3, 6)

    Raises:
      ValueError: blocks that do not divide both sizes; an input whose last axis is not
        in_features.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        blocks: int,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype
        )
        sizes = {"in_features": in_features, "out_features": out_features}
        check_blocks("BlockDiagonalLinear", blocks, **sizes)
        draw = nnx.initializers.lecun_normal(batch_axis=0)
        shape = (blocks, in_features // blocks, out_features // blocks)
        self.kernel = nnx.Param(draw(rngs.params(), shape, param_dtype))
        self.blocks = blocks

    @classmethod
    def from_linear(cls, linear: nnx.Linear, *, blocks: int) -> Self:
        """The blocks on the diagonal of `linear`'s kernel; the rest is dropped.

        Raises:
          ValueError: blocks that do not divide both sizes.
          TypeError: `linear` is no `nnx.Linear`.
        """
        kernel = kernel_of(linear)
        check_blocks(cls.__name__, blocks, in_features=len(kernel), out_features=kernel.shape[1])
        split = kernel.reshape(blocks, len(kernel) // blocks, blocks, -1)  # k p k q
        diagonal = [split[k, :, k] for k in range(blocks)]
        return cls._like(linear, {"kernel": jnp.stack(diagonal)}, blocks=blocks)

    def _weights(self) -> tuple[jax.Array, ...]:
        return (self.kernel[...],)

    def _map(self, rows: jax.Array, kernel: jax.Array) -> jax.Array:
        return block_diagonal(rows, kernel)

    def _kernel(self, kernel: jax.Array) -> jax.Array:
        return jax.scipy.linalg.block_diag(*kernel)
