# SPDX-License-Identifier: Apache-2.0
"""What attention asks of a scheme of positions; each scheme answers one of the three questions."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int


class Position:
    """Base of the schemes: frozen dataclasses, settings only, which many layers may share.

    `positions` is None for 0, 1, 2, ...
    """

    max_length: int | None = None

    def check(self, num_heads: int, head_dim: int) -> None:
        """Raises ValueError where heads of this size cannot use the scheme."""

    def rotate(
        self, x: Float[Array, "*b n h d"], positions: Int[Array, "..."] | None = None
    ) -> Float[Array, "*b n h d"]:
        """Queries or keys with their positions in them."""
        return x

    def slopes(self, num_heads: int) -> np.ndarray | None:
        """What is subtracted from the scores of each head, times the distance."""
        return None

    def make_bias(
        self, num_heads: int, *, causal: bool, param_dtype: Any, rngs: nnx.Rngs
    ) -> "Callable[..., jax.Array] | None":
        """A module that is called with (n, m) and gives (h, n, m) to add to the scores."""
        return None
