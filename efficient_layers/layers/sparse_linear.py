# SPDX-License-Identifier: Apache-2.0
"""Linear layer with N:M sparsity: of every m consecutive inputs of an output, n have a weight."""

from typing import Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Bool, Float

from efficient_layers.layers.dense import Dense, check_linear
from efficient_layers.ops.n_of_m import n_of_m_mask
from efficient_layers.ops.precision import float32_or_wider


class SparseLinear(Dense):
    """y = x (mask * kernel) + bias; mask keeps the `n` largest of every `m` magnitudes.

    Groups run along the inputs of an output, the direction in which sparse tensor cores skip. The
    mask follows the weights: it is recomputed at every call. While training, the gradient of the
    masked kernel goes to the dense one as it is (straight through), so a masked weight can come
    back; in eval mode the gradient is the true one, zero off the mask.

    SR-STE pulls the masked weights to zero so that the mask settles: add `decay * out["masked"]`
    to the loss, `out["masked"]` being half the sum of squares of the masked weights; its gradient
    is the paper's decay * (1 - mask) * kernel (2e-4 there). Leave it out for plain
    straight-through training. `merge()` writes the zeros into an `nnx.Linear`.

    The weights are *masked*, not removed: XLA multiplies by the zeros on every backend, so this
    trains kernels for hardware with sparse units and is no faster here. MACs are those of the
    dense layer.

    params = in_features * out_features + out_features * use_bias
    MACs = positions * in_features * out_features

    Differs from the paper: SR-STE's decay is a term of the loss, so it passes through any
    optimiser like the gradient does; ties keep the first weights.

    Reference: Mishra et al., *Accelerating Sparse Deep Neural Networks* (arXiv 2104.08378),
    section 2, for 2:4; Zhou et al., *Learning N:M Fine-grained Structured Sparse Neural Networks
    From Scratch* (arXiv 2102.04010), section 3.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.SparseLinear(8, 6, n=2, m=4, rngs=nnx.Rngs(0))(jnp.ones((3, 8))).shape
    (3, 6)

    Raises:
      ValueError: m that does not divide in_features; n outside 1 ... m; an input whose last axis
        is not in_features.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        n: int = 2,
        m: int = 4,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype
        )
        if m < 1 or in_features % m:
            raise ValueError(
                f"SparseLinear expects m to divide in_features={in_features}. Got {m}."
            )
        if not 1 <= n <= m:
            raise ValueError(f"SparseLinear expects n from 1 to m={m}. Got {n}.")
        draw = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(draw(rngs.params(), (in_features, out_features), param_dtype))
        self.n, self.m = n, m
        self.deterministic = False

    def __call__(
        self, x: Float[Array, "*b d"], *, out: dict[str, jax.Array] | None = None
    ) -> Float[Array, "*b o"]:
        """(*b, in_features) -> (*b, out_features); `out` receives "masked", a float32 scalar."""
        with jax.named_scope("SparseLinear"):
            if out is not None:
                off = jnp.where(self.mask(), 0, self.kernel[...])
                wide = float32_or_wider(off.dtype)
                out["masked"] = (off.astype(wide) ** 2).sum() / 2
            return self._apply(x)

    def mask(self) -> Bool[Array, "i o"]:
        """Where weights are kept: `n` of every `m` along the inputs."""
        return n_of_m_mask(self.kernel[...], self.n, self.m)

    @classmethod
    def from_linear(cls, linear: nnx.Linear, *, n: int = 2, m: int = 4) -> Self:
        """`linear`'s kernel, to be masked: its largest `n` of every `m` count, the rest is kept.

        Raises:
          ValueError: n or m as in the constructor.
          TypeError: `linear` is no `nnx.Linear`.
        """
        check_linear(linear)
        return cls._like(linear, {"kernel": linear.kernel[...]}, n=n, m=m)

    def _weights(self) -> tuple[jax.Array, ...]:
        # Masked before any cast: in bfloat16 other weights could tie or win.
        dense = self.kernel[...]
        masked = jnp.where(self.mask(), dense, 0)
        if self.deterministic:
            return (masked,)
        # dense - stop_gradient(dense) is exactly 0, so the value is `masked` to the last bit.
        return (lax.stop_gradient(masked) + (dense - lax.stop_gradient(dense)),)

    def _map(self, rows: jax.Array, kernel: jax.Array) -> jax.Array:
        return rows @ kernel

    def _kernel(self, kernel: jax.Array) -> jax.Array:
        return kernel
