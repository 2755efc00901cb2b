# SPDX-License-Identifier: Apache-2.0
"""What stands where a layer was folded into another."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Identity(nnx.Module):
    """y = x, whatever else it is called with.

    It takes the place of a BatchNorm that was folded into the layer before it
    (`el.compress.FoldBatchNorm`), or of a whole residual block (`el.compress.RemoveBlocks`), so
    that the code of the model stays as it is. Token by token it remembers nothing.

    params = 0
    MACs = 0

    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.Identity()(jnp.ones((4, 2)), use_running_average=True).shape
    (4, 2)

    Raises:
      TypeError: an input of integers.
    """

    def __init__(self, *, rngs: nnx.Rngs | None = None):
        del rngs  # nothing is drawn: every layer can be made with `rngs`

    def __call__(self, x: Float[Array, "..."], *args: Any, **kwargs: Any) -> Float[Array, "..."]:
        """x of any shape."""
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"Identity expects a floating-point input. Got {x.dtype}.")
        return x

    def init_state(self, batch: int) -> None:
        """What `decode` starts from: nothing."""

    def decode(self, x: Float[Array, "..."], state: Any = None) -> tuple[Float[Array, "..."], Any]:
        """x, and the state as it is."""
        return self(x), state
