# SPDX-License-Identifier: Apache-2.0
"""Stochastic depth: while training, a residual branch is left out at random."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers.dropout import dropout_key


class DropPath(nnx.Module):
    """y = x m / (1 - rate), m drawn 1 with probability 1 - rate, else 0; y = x in eval mode.

    Put on the branch, y = x + drop_path(f(x)): an example whose m is 0 skips f. `mode="row"` draws
    m for every example (the first axis of x), `mode="batch"` once for all of them, so that a whole
    block is off (torchvision's names; timm's `DropPath` is "row"). The usual rates grow linearly
    with depth from 0 to 0.1 ... 0.5.

    Differs from the paper: kept branches are divided by 1 - rate while training, as in timm and
    torchvision, instead of multiplied by it in eval mode. f is computed whether it is kept or not.

    params = 0
    MACs = 0

    Reference: Huang et al., *Deep Networks with Stochastic Depth* (arXiv 1603.09382), section 3;
    an example at a time: Larsson et al., *FractalNet* (arXiv 1605.07648), section 3, "drop-path".

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.DropPath(0.5)(jnp.ones((4, 2)), rngs=nnx.Rngs(3)).shape
    (4, 2)

    Raises:
      ValueError: a rate outside [0, 1]; another mode; train mode without `rngs` at a rate above 0;
        an input without a batch axis in mode "row".
      TypeError: an input of integers.
    """

    def __init__(self, rate: float, *, mode: Literal["row", "batch"] = "row"):
        if not 0 <= rate <= 1:
            raise ValueError(f"DropPath expects a rate in [0, 1]. Got {rate}.")
        if mode not in ("row", "batch"):
            raise ValueError(f"DropPath expects mode 'row' or 'batch'. Got {mode!r}.")
        self.rate = rate
        self.mode = mode
        self.deterministic = False

    def __call__(
        self, x: Float[Array, "*b d"], *, rngs: nnx.Rngs | jax.Array | None = None
    ) -> Float[Array, "*b d"]:
        """x of any shape with the batch first; `rngs`: a key, or its stream "dropout"."""
        self._check(x)
        if self.deterministic or self.rate == 0:
            return x
        key = dropout_key(rngs, f"DropPath with rate={self.rate}")
        if self.rate == 1:
            return jnp.zeros_like(x)
        rows = x.shape[:1] if self.mode == "row" else ()
        with jax.named_scope("DropPath"):
            kept = jax.random.bernoulli(key, 1 - self.rate, rows)
            kept = kept.reshape(*rows, *(1,) * (x.ndim - len(rows)))
            return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))

    def _check(self, x):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"DropPath expects a floating-point input. Got {x.dtype}.")
        if self.mode == "row" and x.ndim < 1:
            raise ValueError("DropPath in mode 'row' expects a batch axis. Got a scalar.")
