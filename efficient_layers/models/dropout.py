# SPDX-License-Identifier: Apache-2.0
"""Dropout whose key comes with the call: no layer keeps random state."""

import jax
from flax import nnx
from jaxtyping import Array, Float


def drop(
    layer: nnx.Dropout, x: Float[Array, "..."], rngs: nnx.Rngs | jax.Array | None
) -> Float[Array, "..."]:
    """`layer(x)` with a key from `rngs`; x itself in eval mode or at rate 0.

    Reference: Srivastava et al., *Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting*, JMLR 2014, section 4.

    Raises:
      ValueError: the layer is in train mode, drops something, and `rngs` is None.
    """
    if rngs is None and layer.rate > 0 and not layer.deterministic:
        raise ValueError(
            f"A model in train mode with dropout_rate={layer.rate} needs a key for its dropout. "
            "Got rngs=None. Call model(x, rngs=nnx.Rngs(dropout=key)), or model.eval() first."
        )
    return layer(x, rngs=rngs)
