# SPDX-License-Identifier: Apache-2.0
"""Linear layer of low rank as two linear layers, each a module that can be compressed further."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.ops.kernel_factors import check_rank


class FactorizedLinear(nnx.Module):
    """y = expand(reduce(x)): in_features to `rank` without bias, `rank` to out_features.

    What `LowRankLinear` computes, with its factors in modules of their own, `reduce` and `expand`,
    so that each can be exchanged for a quantised one (`el.compress.Quantize` does so). Both kernels
    are drawn with variance 1 / fan-in.

    params = rank * (in_features + out_features) + out_features * use_bias
    MACs = positions * rank * (in_features + out_features)

    Reference: Sainath et al., *Low-rank matrix factorization for deep neural network training with
    high-dimensional output targets*, 2013.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.FactorizedLinear(8, 6, rank=2, rngs=nnx.Rngs(0))(jnp.ones((3, 8))).shape
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
        if in_features < 1 or out_features < 1:
            raise ValueError(
                "FactorizedLinear expects sizes of at least 1. "
                f"Got in_features={in_features}, out_features={out_features}."
            )
        limit = min(in_features, out_features)
        check_rank("FactorizedLinear", rank, limit, "the smaller of in_features and out_features")
        self.in_features = in_features
        self.out_features = out_features
        self.rank = rank
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        self.reduce = nnx.Linear(in_features, rank, use_bias=False, **types, rngs=rngs)
        self.expand = nnx.Linear(rank, out_features, use_bias=use_bias, **types, rngs=rngs)

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b o"]:
        """(*b, in_features) -> (*b, out_features)."""
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"FactorizedLinear expects a floating-point input. Got {x.dtype}.")
        if x.ndim < 1 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"FactorizedLinear expects an input of shape (*batch, {self.in_features}). "
                f"Got {x.shape}."
            )
        with jax.named_scope("FactorizedLinear"):
            return self.expand(self.reduce(x))
