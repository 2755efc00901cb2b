# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, as settings of attention layers or used alone."""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from efficient_layers.layers.position import Position
from efficient_layers.ops.rotary import rotary_frequencies, rotate

Scaling = Literal["linear", "ntk"]


@dataclass(frozen=True)
class RoPE(Position):
    """Turns pairs of features of queries and keys by angles proportional to their position.

    The product of a query and a key then depends on their distance alone. Pair i of the first
    `fraction` of the features turns by base^(-2 i / features) radians a position. The pairs are
    features (i, i + half), as in transformers' Llama, or (2 i, 2 i + 1) if `interleaved`, as in
    the paper: the same up to the order of the kernels' columns. `factor` stretches a trained model
    to `factor` times its length: "linear" divides positions by it, "ntk" raises the base so that
    the slowest pair turns `factor` times slower and the fastest as before.

    There is no table. `max_length` makes a position from there on an error where it is known, and
    NaN inside `jax.jit`, where it is not. Costs 4 products a turned pair, no MACs, no parameters.

    References: Su et al., *RoFormer* (arXiv 2104.09864), section 3.2.2; Chen et al., *Extending
    Context Window by Positional Interpolation* (arXiv 2306.15595), equation 4; "ntk": Peng et al.,
    *YaRN* (arXiv 2309.00071), section 3.1, definition 1.

    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.RoPE().rotate(jnp.ones((2, 5, 3, 8))).shape
    (2, 5, 3, 8)

    Raises:
      ValueError: settings out of range; an odd number of features to turn; a position from
        `max_length` on.
    """

    base: float = 10_000.0
    fraction: float = 1.0
    interleaved: bool = False
    scaling: Scaling | None = None
    factor: float = 1.0
    max_length: int | None = None

    def __post_init__(self) -> None:
        if not self.base > 0 or not 0 < self.fraction <= 1:
            raise ValueError(
                "RoPE expects base > 0 and a fraction in (0, 1]. "
                f"Got base={self.base}, fraction={self.fraction}."
            )
        if self.scaling not in (None, *get_args(Scaling)):
            raise ValueError(f"RoPE expects scaling 'linear', 'ntk' or None. Got {self.scaling!r}.")
        if self.factor < 1 or (self.scaling is None) != (self.factor == 1):
            raise ValueError(
                "RoPE expects a factor above 1 with a scaling, and 1 without. "
                f"Got factor={self.factor}, scaling={self.scaling!r}."
            )
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"RoPE expects max_length of at least 1. Got {self.max_length}.")

    def check(self, num_heads: int, head_dim: int) -> None:
        """Raises ValueError where `head_dim` does not have an even number of features to turn."""
        self.frequencies(head_dim)

    def frequencies(self, head_dim: int) -> np.ndarray:
        """Radians a position for each pair of features."""
        turned = int(head_dim * self.fraction)
        if turned < 2 or turned % 2:
            raise ValueError(
                f"RoPE expects an even number of features to turn. Got {turned}: "
                f"head_dim={head_dim} times fraction={self.fraction}."
            )
        base = self.base
        if self.scaling == "ntk" and turned > 2:
            base *= self.factor ** (turned / (turned - 2))
        found = rotary_frequencies(turned, base)
        return found / self.factor if self.scaling == "linear" else found

    def rotate(
        self, x: Float[Array, "*b n h d"], positions: Int[Array, "..."] | None = None
    ) -> Float[Array, "*b n h d"]:
        """`positions` of shape (n,) or (*b, n); None: 0, 1, 2, ..."""
        frequencies = self.frequencies(x.shape[-1])
        if positions is None:
            self._refuse(x.shape[-3])
            positions = jnp.arange(x.shape[-3], dtype=jnp.int32)
        if positions.shape not in (x.shape[-3:-2], x.shape[:-2]):
            raise ValueError(
                f"RoPE expects positions of shape {x.shape[-3:-2]} or {x.shape[:-2]}. "
                f"Got {positions.shape}."
            )
        y = rotate(x, positions, frequencies, interleaved=self.interleaved)
        if self.max_length is None:
            return y
        if not isinstance(positions, jax.core.Tracer) and positions.size:
            self._refuse(int(positions.max()) + 1)
        beyond = (positions >= self.max_length)[..., None, None]
        return jnp.where(beyond.reshape((1,) * (x.ndim - beyond.ndim) + beyond.shape), jnp.nan, y)

    def _refuse(self, length: int) -> None:
        if self.max_length is not None and length > self.max_length:
            raise ValueError(
                f"RoPE expects positions below max_length={self.max_length}. Got {length - 1}. "
                "Raise max_length, and set scaling and factor if the weights were trained on less."
            )
