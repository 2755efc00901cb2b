# SPDX-License-Identifier: Apache-2.0
"""What recurrent layers share: sequences in and out, a state to go on from, checks."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.layers.projected_heads import (
    check_state,
    check_tokens,
    rows_of,
    with_batch,
)
from efficient_layers.ops.precision import float32_or_wider

State = Any


class Recurrent(nnx.Module):
    """(*b, n, in_features) -> (*b, n, out), position by position or as if.

    A subclass gives `_run`, (b, n, in_features) and a state to (b, n, out) and the state after. The
    state is a vector (*b, hidden_features), in float32 at the least, unless `_empty` is another.
    """

    hidden_features: int

    def __init__(self, in_features: int, dtype: Dtype | None, param_dtype: Dtype, **sizes: int):
        sizes = {"in_features": in_features, **sizes}
        if min(sizes.values()) < 1:
            given = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise ValueError(f"{type(self).__name__} expects sizes of at least 1. Got {given}.")
        self.in_features = in_features
        self.dtype = dtype
        self.param_dtype = param_dtype

    def __call__(self, x: Float[Array, "*b n d"]) -> Float[Array, "*b n o"]:
        """The outputs at all positions, from an empty state."""
        batch = x.shape[:-2]
        check_tokens(type(self).__name__, x, self.in_features)
        with jax.named_scope(type(self).__name__):
            flat = x.reshape(prod(batch), *x.shape[-2:])
            y, _ = self._run(flat, None)
            return y.reshape(*batch, *y.shape[-2:])

    def init_state(self, batch: int | Sequence[int]) -> State:
        """What the layer remembers before the first position of `batch` sequences."""
        wide = float32_or_wider(self.dtype or self.param_dtype)
        return self._empty(tuple(batch) if isinstance(batch, Sequence) else (batch,), wide)

    def decode(
        self, x: Float[Array, "*b n d"], state: State
    ) -> tuple[Float[Array, "*b n o"], State]:
        """The next positions of each sequence (one, or many), and the state after them.

        Raises:
          ValueError: an input of other features or without a position axis; a state of another
            batch.
          TypeError: an input of integers.
        """
        name, batch = type(self).__name__, x.shape[:-2]
        check_tokens(name, x, self.in_features)
        check_state(name, state, jax.eval_shape(lambda: self.init_state(batch)))
        with jax.named_scope(name):
            y, after = self._run(x.reshape(prod(batch), *x.shape[-2:]), rows_of(state, batch))
            return y.reshape(*batch, *y.shape[-2:]), with_batch(after, batch)

    def _run(self, x: jax.Array, state: State) -> tuple[jax.Array, State]:
        raise NotImplementedError

    def _empty(self, batch: tuple[int, ...], dtype: Dtype) -> State:
        return jnp.zeros((*batch, self.hidden_features), dtype)
