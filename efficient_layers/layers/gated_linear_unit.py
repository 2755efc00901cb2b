# SPDX-License-Identifier: Apache-2.0
"""Feed-forward layers whose hidden units are gated by a second projection of the input."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.ops.activation import gelu


class GatedLinearUnit(nnx.Module):
    """y = (act(x w) * (x v)) down, with w and v (in, hidden) in one kernel, `gate_up` = [w, v].

    One matrix product of width 2 hidden takes the place of two. `act=jax.nn.silu` is SwiGLU (the
    default), gelu is GEGLU, sigmoid the first GLU. At equal parameters `hidden_features` is 2/3 of
    an ungated feed-forward layer's. Weights of the transformers library (`gate_proj`, `up_proj`,
    `down_proj`) fit transposed, the first two side by side, as in its Phi-3. Without biases unless
    `use_bias`. Initialisation keeps the variance of each product (lecun normal).

    params = hidden_features * (2 * in_features + out_features)
    params += use_bias * (2 * hidden_features + out_features)
    MACs = positions * hidden_features * (2 * in_features + out_features)

    Reference: Shazeer, *GLU Variants Improve Transformer* (arXiv 2002.05202), section 2,
    equation 6; Dauphin et al., *Language Modeling with Gated Convolutional Networks* (arXiv
    1612.08083), equation 1.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.GatedLinearUnit(8, 12, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 8))).shape
    (2, 5, 8)

    Raises:
      ValueError: a size below 1; an input whose last axis is not in_features.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int | None = None,
        *,
        act: Callable[[jax.Array], jax.Array] = jax.nn.silu,
        use_bias: bool = False,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        out_features = in_features if out_features is None else out_features
        if min(in_features, hidden_features, out_features) < 1:
            raise ValueError(
                f"{type(self).__name__} expects sizes of at least 1. Got {in_features=}, "
                f"{hidden_features=}, {out_features=}."
            )
        settings: dict[str, Any] = {
            "use_bias": use_bias,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.gate_up = nnx.Linear(in_features, 2 * hidden_features, **settings)
        self.down = nnx.Linear(hidden_features, out_features, **settings)
        self.act = act
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.out_features = out_features

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b o"]:
        """(*b, in_features) -> (*b, out_features)."""
        name = type(self).__name__
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"{name} expects a floating-point input. Got {x.dtype}.")
        if x.ndim < 1 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"{name} expects an input of shape (*batch, {self.in_features}). Got {x.shape}."
            )
        with jax.named_scope(name):
            both = self.gate_up(x)  # (*b, 2 hidden)
            gate, up = both[..., : self.hidden_features], both[..., self.hidden_features :]
            return self.down(self.act(gate) * up)


class SwiGLU(GatedLinearUnit):
    """y = (silu(x w) * (x v)) down: the feed-forward layer of Llama and PaLM.

    `GatedLinearUnit` with `act` fixed.

    params = hidden_features * (2 * in_features + out_features)
    params += use_bias * (2 * hidden_features + out_features)
    MACs = positions * hidden_features * (2 * in_features + out_features)

    Reference: Shazeer, *GLU Variants Improve Transformer* (arXiv 2002.05202), equation 6.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.SwiGLU(8, 12, 4, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 8))).shape
    (2, 5, 4)
    """

    def __init__(
        self, in_features: int, hidden_features: int, out_features: int | None = None, **kwargs: Any
    ):
        super().__init__(in_features, hidden_features, out_features, act=jax.nn.silu, **kwargs)


class GEGLU(GatedLinearUnit):
    """y = (gelu(x w) * (x v)) down, with the exact gelu (erf; T5 1.1 has the tanh approximation).

    `GatedLinearUnit` with `act` fixed.

    params = hidden_features * (2 * in_features + out_features)
    params += use_bias * (2 * hidden_features + out_features)
    MACs = positions * hidden_features * (2 * in_features + out_features)

    Reference: Shazeer, *GLU Variants Improve Transformer* (arXiv 2002.05202), equation 6.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.GEGLU(8, 12, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 8))).shape
    (2, 5, 8)
    """

    def __init__(
        self, in_features: int, hidden_features: int, out_features: int | None = None, **kwargs: Any
    ):
        super().__init__(in_features, hidden_features, out_features, act=gelu, **kwargs)
