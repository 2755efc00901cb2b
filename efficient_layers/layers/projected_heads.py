# SPDX-License-Identifier: Apache-2.0
"""What the variants of attention share: projections to heads and back, checks, decoding."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.ops.precision import float32_or_wider

State = Any


class ProjectedHeads(nnx.Module):
    """y = concat_h(mix(x query_h, x key_h, x value_h)) out, with `mix` from the subclass.

    Letters: b batch, h heads, n positions, d features. A subclass gives `_mix`.
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        head_dim: int | None,
        use_bias: bool,
        dtype: Dtype | None,
        param_dtype: Dtype,
        rngs: nnx.Rngs,
    ):
        name = type(self).__name__
        if min(in_features, num_heads) < 1 or (head_dim is not None and head_dim < 1):
            raise ValueError(
                f"{name} expects sizes of at least 1. Got in_features={in_features}, "
                f"num_heads={num_heads}, head_dim={head_dim}."
            )
        if head_dim is None and in_features % num_heads:
            raise ValueError(
                f"{name} expects num_heads that divide in_features={in_features}, or a head_dim. "
                f"Got num_heads={num_heads}."
            )
        self.in_features = in_features
        self.num_heads = num_heads
        self.head_dim = head_dim or in_features // num_heads
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = param_dtype
        inner = self.num_heads * self.head_dim
        self.query = self._linear(in_features, inner, rngs)
        self.key = self._linear(in_features, inner, rngs)
        self.value = self._linear(in_features, inner, rngs)
        self.out = self._linear(inner, in_features, rngs)

    def __call__(self, x: Float[Array, "*b n d"]) -> Float[Array, "*b n d"]:
        """Tokens of sequences to tokens, (*b, n, in_features)."""
        self._check(x)
        with jax.named_scope(type(self).__name__):
            y, _ = self._mix(_flat(x, 2), None)
            return self._out(y).reshape(x.shape)

    def _mix(self, x: jax.Array, state: State) -> tuple[jax.Array, State]:
        """(b, n, in_features), what the layer remembers -> (b, h, n, head_dim), the same after."""
        raise NotImplementedError

    def _linear(
        self, features: int, out: int, rngs: nnx.Rngs, *, use_bias: bool | None = None
    ) -> nnx.Linear:
        use_bias = self.use_bias if use_bias is None else use_bias
        kinds: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return nnx.Linear(features, out, use_bias=use_bias, **kinds, rngs=rngs)

    def _heads(self, x: jax.Array, linear: nnx.Linear) -> jax.Array:
        """(b, n, in_features) through `linear`, as (b, h, n, head_dim)."""
        b, n, _ = x.shape
        # Rows, for the gradient of the weights: XLA's CPU backend computes that of a product of
        # three axes at a third of the speed (docs/LOG.md).
        y = linear(x.reshape(b * n, self.in_features))
        return y.reshape(b, n, self.num_heads, linear.out_features // self.num_heads).swapaxes(1, 2)

    def _all_heads(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values."""
        query, key, value = (self._heads(x, f) for f in (self.query, self.key, self.value))
        return query, key, value

    def _out(self, y: jax.Array) -> jax.Array:
        """(b, h, n, head_dim) -> rows (b n, in_features)."""
        b, h, n, d = y.shape
        return self.out(y.swapaxes(1, 2).reshape(b * n, h * d))

    def _check(self, x: jax.Array) -> None:
        check_tokens(type(self).__name__, x, self.in_features)


class DecodingHeads(ProjectedHeads):
    """`ProjectedHeads` that go through a sequence with a state whose size does not depend on n.

    `decode` after `init_state` computes what `__call__` does. The state is a matrix a head,
    (*b, h, head_dim, head_dim) in float32 at the least, unless a subclass gives another `_empty`.
    """

    def init_state(self, batch: int | Sequence[int]) -> State:
        """What the layer remembers before the first position of `batch` sequences."""
        self._check_decoding()
        return self._empty(tuple(batch) if isinstance(batch, Sequence) else (batch,))

    def decode(
        self, x: Float[Array, "*b n d"], state: State
    ) -> tuple[Float[Array, "*b n d"], State]:
        """The next positions of each sequence (one, or a whole prompt), and the state after them.

        Raises:
          ValueError: an input of other features or without a position axis; a state of another
            batch; a layer that is not causal.
          TypeError: an input of integers.
        """
        self._check_decoding()
        self._check(x)
        batch = x.shape[:-2]
        expected = jax.eval_shape(lambda: self._empty(batch))
        check_state(type(self).__name__, state, expected)
        with jax.named_scope(type(self).__name__):
            y, after = self._mix(_flat(x, 2), rows_of(state, batch))
            after = with_batch(after, batch)
            return self._out(y).reshape(x.shape), after

    def _empty(self, batch: tuple[int, ...]) -> State:
        wide = float32_or_wider(self.dtype or self.param_dtype)
        return jnp.zeros((*batch, self.num_heads, self.head_dim, self.head_dim), wide)

    def _check_decoding(self) -> None:
        if not getattr(self, "causal", True):
            raise ValueError(
                f"{type(self).__name__} decodes where it is causal. Got causal=False: make it with "
                "causal=True."
            )


def _flat(x: jax.Array, kept: int) -> jax.Array:
    """All leading axes but the last `kept` as one."""
    return x.reshape(prod(x.shape[:-kept]), *x.shape[-kept:])


def rows_of(state: State, batch: tuple[int, ...]) -> State:
    """A state of (*batch, ...) as (b, ...)."""
    return jax.tree.map(lambda s: s.reshape(prod(batch), *s.shape[len(batch) :]), state)


def with_batch(state: State, batch: tuple[int, ...]) -> State:
    """A state of (b, ...) as (*batch, ...)."""
    return jax.tree.map(lambda s: s.reshape(*batch, *s.shape[1:]), state)


def check_tokens(name: str, x: jax.Array, features: int) -> None:
    """Raises TypeError for integers, ValueError for a shape that is not (*batch, n, features)."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(f"{name} expects a floating-point input. Got {x.dtype}.")
    if x.ndim < 2 or x.shape[-1] != features:
        raise ValueError(
            f"{name} expects an input of shape (*batch, positions, {features}). Got {x.shape}."
        )


def check_state(name: str, state: State, expected: State) -> None:
    """Raises ValueError unless `state` has the shapes of `expected`."""
    wanted, got = ([v.shape for v in jax.tree.leaves(tree)] for tree in (expected, state))
    if wanted != got:
        raise ValueError(
            f"{name}.decode expects a state of shapes {wanted} (init_state makes one). Got {got}."
        )
