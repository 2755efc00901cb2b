# SPDX-License-Identifier: Apache-2.0
"""Low-rank adaptation: a frozen linear layer plus a small trained correction."""

from typing import Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.layers.dense import Dense, check_linear
from efficient_layers.layers.dropout import dropout_key
from efficient_layers.ops.kernel_factors import check_rank


class Frozen(nnx.Variable):
    """A weight that is stored and never trained: no `nnx.Param`, so no gradient is taken of it.

    Counted in weight bytes, not in params (which are the trainable ones).
    """


class LoRALinear(Dense):
    """y = x W + bias + (alpha / rank) (drop(x) A) B; W and bias are frozen, A and B are trained.

    B starts at zero, so a new layer computes exactly what its base does; A is drawn with variance
    1 / in. `alpha=None` is alpha = rank, a scale of 1. `dropout_rate` drops entries of x on the
    way to A while training. W (`kernel`) and `bias` are `Frozen` variables: saved with the model,
    outside of `nnx.Param`, so no optimiser keeps state for them.

    trained = rank * (in_features + out_features)
    params = trained
    MACs = positions * (in_features * out_features + trained)

    Without training, `merge()` first: the correction then costs nothing.

    Differs from the paper: it leaves open which Gaussian A comes from.

    Reference: Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models* (arXiv 2106.09685),
    section 4.1.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.LoRALinear(8, 6, rank=2, rngs=nnx.Rngs(0))(jnp.ones((3, 8))).shape
    (3, 6)

    Raises:
      ValueError: rank outside 1 ... min(in, out); a dropout_rate outside [0, 1); no rngs in train
        mode with a dropout_rate above 0; an input whose last axis is not in_features.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: int,
        alpha: float | None = None,
        dropout_rate: float = 0.0,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=False, dtype=dtype, param_dtype=param_dtype
        )
        limit = min(in_features, out_features)
        check_rank("LoRALinear", rank, limit, "the smaller of in_features and out_features")
        if not 0 <= dropout_rate < 1:
            raise ValueError(f"LoRALinear expects a dropout_rate in [0, 1). Got {dropout_rate}.")
        draw = nnx.initializers.lecun_normal()
        self.kernel = Frozen(draw(rngs.params(), (in_features, out_features), param_dtype))
        self.lora_a = nnx.Param(draw(rngs.params(), (in_features, rank), param_dtype))
        self.lora_b = nnx.Param(jnp.zeros((rank, out_features), param_dtype))
        self.use_bias = use_bias
        if use_bias:
            self.bias = Frozen(jnp.zeros((out_features,), param_dtype))
        self.rank = rank
        self.alpha = float(rank) if alpha is None else alpha
        self.dropout_rate = dropout_rate
        self.deterministic = False

    def __call__(
        self, x: Float[Array, "*b d"], *, rngs: nnx.Rngs | jax.Array | None = None
    ) -> Float[Array, "*b o"]:
        """(*b, in_features) -> (*b, out_features); `rngs` for dropout in train mode (or a key)."""
        with jax.named_scope("LoRALinear"):
            if self.deterministic or not self.dropout_rate:
                return self._apply(x)
            self._check(x)
            key = dropout_key(rngs, f"LoRALinear with dropout_rate={self.dropout_rate}")
            keep = jax.random.bernoulli(key, 1 - self.dropout_rate, x.shape)
            return self._apply(x, keep.reshape(-1, self.in_features))

    @classmethod
    def from_linear(
        cls,
        linear: nnx.Linear,
        *,
        rank: int,
        alpha: float | None = None,
        dropout_rate: float = 0.0,
        rngs: nnx.Rngs,
    ) -> Self:
        """`linear`, frozen, with a correction that is zero as yet. `rngs` draws A.

        Raises:
          ValueError: a rank or dropout_rate out of range.
          TypeError: `linear` is no `nnx.Linear`.
        """
        check_linear(linear)
        shape = (linear.in_features, rank)
        a = nnx.initializers.lecun_normal()(rngs.params(), shape, linear.param_dtype)
        weights = {
            "kernel": linear.kernel[...],
            "lora_a": a,
            "lora_b": jnp.zeros((rank, linear.out_features)),
        }
        return cls._like(linear, weights, rank=rank, alpha=alpha, dropout_rate=dropout_rate)

    def _weights(self) -> tuple[jax.Array, ...]:
        return self.kernel[...], self.lora_a[...], self.lora_b[...]

    def _map(
        self,
        rows: jax.Array,
        kernel: jax.Array,
        a: jax.Array,
        b: jax.Array,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        seen = rows
        if keep is not None:
            seen = jnp.where(keep, rows / (1 - self.dropout_rate), 0)
        return rows @ kernel + ((seen @ a) * (self.alpha / self.rank)) @ b

    def _kernel(self, kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        return kernel + (a * (self.alpha / self.rank)) @ b
