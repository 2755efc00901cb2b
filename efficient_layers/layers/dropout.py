# SPDX-License-Identifier: Apache-2.0
"""Randomness comes with the call: no layer keeps random state."""

import jax
from flax import nnx
from jaxtyping import Array, Float


def dropout_key(rngs: nnx.Rngs | jax.Array | None, random: str) -> jax.Array:
    """The key of a layer that is random in train mode: `rngs` itself, or of its stream "dropout".

    `random` names the layer and its setting, as in "DropPath with rate=0.5".

    Raises:
      ValueError: `rngs` is None.
    """
    if rngs is None:
        raise ValueError(
            f"{random} in train mode needs a key. Got rngs=None. Call it with "
            "rngs=nnx.Rngs(dropout=key), or call .eval() on it first."
        )
    return rngs.dropout() if isinstance(rngs, nnx.Rngs) else rngs


def drop(
    layer: nnx.Dropout, x: Float[Array, "..."], rngs: nnx.Rngs | jax.Array | None
) -> Float[Array, "..."]:
    """`layer(x)` with a key from `rngs`; x itself in eval mode or at rate 0.

    Reference: Srivastava et al., *Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting*, JMLR 2014, section 4.

    Raises:
      ValueError: the layer is in train mode, drops something, and `rngs` is None.
    """
    if layer.deterministic or layer.rate == 0:
        return x
    return layer(x, rngs=dropout_key(rngs, f"A model with dropout_rate={layer.rate}"))
