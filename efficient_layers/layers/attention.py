# SPDX-License-Identifier: Apache-2.0
"""What the layers of softmax attention share: projections, heads, positions, masks, checks."""

from typing import Any, TypedDict

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Bool, Float, Int

from efficient_layers.layers.decoding import decode, init_cache
from efficient_layers.layers.dropout import dropout_key
from efficient_layers.layers.kv_cache import KVCache
from efficient_layers.layers.position import Position
from efficient_layers.layers.rms_norm import RMSNorm
from efficient_layers.layers.rope import RoPE
from efficient_layers.ops.attention import dot_product_attention
from efficient_layers.ops.rotary import restarting_positions

Segments = Int[Array, "*b n"] | tuple[Int[Array, "*b n"], Int[Array, "*b m"]]


class Options(TypedDict, total=False):
    """Settings that every layer of softmax attention takes; see `MultiHeadAttention`."""

    head_dim: int | None
    causal: bool
    position: Position | None
    qk_norm: bool
    use_bias: bool
    dropout_rate: float
    dtype: Dtype | None
    param_dtype: Dtype
    rngs: nnx.Rngs


class Attention(nnx.Module):
    """Queries of x, keys and values of x or of a context, their weighted mean, a projection.

    Subclasses set `window`, or write `_attend` anew.
    """

    window: int | None = None

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        causal: bool = False,
        position: Position | None = None,
        qk_norm: bool = False,
        use_bias: bool = True,
        dropout_rate: float = 0.0,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.num_heads = in_features, num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.head_dim = self._head_dim(head_dim)
        self.causal, self.position = causal, position
        self.qk_norm, self.use_bias, self.dropout_rate = qk_norm, use_bias, dropout_rate
        self.dtype = dtype
        self.deterministic = False
        self._check_settings()
        types: Any = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        wide, narrow = num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.query = nnx.Linear(in_features, wide, use_bias=use_bias, **types)
        self.key = nnx.Linear(in_features, narrow, use_bias=use_bias, **types)
        self.value = nnx.Linear(in_features, narrow, use_bias=use_bias, **types)
        self.out = nnx.Linear(wide, in_features, use_bias=use_bias, **types)
        self.query_norm: Any = nnx.data(RMSNorm(self.head_dim, **types) if qk_norm else None)
        self.key_norm: Any = nnx.data(RMSNorm(self.head_dim, **types) if qk_norm else None)
        bias = position and position.make_bias(
            num_heads, causal=causal, param_dtype=param_dtype, rngs=rngs
        )
        self.relative_bias: Any = nnx.data(bias)

    def __call__(
        self,
        x: Float[Array, "*b n d"],
        context: Float[Array, "*b m d"] | None = None,
        *,
        mask: Bool[Array, "..."] | None = None,
        segments: Segments | None = None,
        positions: Int[Array, "..."] | None = None,
        rngs: nnx.Rngs | jax.Array | None = None,
    ) -> Float[Array, "*b n d"]:
        """Every token of x looks at those of `context`, or of x itself.

        Args:
          mask: True = seen; of shape (*b, m) for keys, (*b, n, m), or (*b, h, n, m); 1 stands for
            any of these sizes.
          segments: ids of packed sequences, seen only where equal; with a context a pair. The
            positions of RoPE then restart with every run of equal ids.
          positions: of the tokens, for RoPE: (n,) or (*b, n). None: 0, 1, 2, ...
          rngs: (or a key) for dropout in train mode.
        """
        self._check(x, context)
        with jax.named_scope(type(self).__name__):
            source = x if context is None else context
            if segments is not None and not isinstance(segments, tuple):
                segments = self._pair(segments, x, context)
            at = self._positions(positions, segments, x, context)
            query = self._heads(x, self.query, self.query_norm, at[0])
            key = self._heads(source, self.key, self.key_norm, at[1])
            value = self._heads(source, self.value, None, None, turn=False)
            y = self._attend(
                query,
                key,
                value,
                mask=self._mask(mask, (*x.shape[:-1], source.shape[-2])),
                segments=segments,
                **self._dropout(rngs),
            )
            return self._joined(y)

    def init_cache(
        self,
        batch: int | tuple[int, ...],
        max_length: int,
        *,
        dtype: Dtype | None = None,
        piece: int = 1,
    ) -> KVCache:
        """An empty cache for `decode`, of `max_length` tokens; `batch`: the axes before them.

        With a window it has window + piece - 1 slots and rolls over, if that is less than
        max_length: `piece` is how many tokens a call of `decode` brings at most. `dtype`: float32
        (or the layer's), bfloat16, or int8 with scales.

        Raises:
          ValueError: a layer that is not causal, a max_length that its positions do not have.
        """
        return init_cache(self, batch, max_length, dtype, piece)

    def decode(
        self, x: Float[Array, "*b n d"], cache: KVCache
    ) -> tuple[Float[Array, "*b n d"], KVCache]:
        """Outputs of the next n tokens (a prompt, or one new token), and the cache with them.

        The same numbers as the rows of a call on all tokens so far, in eval mode: to rounding for
        a float cache. One program for any length. Overflow: see `KVCache`.

        Raises:
          ValueError: a full cache or a position beyond RoPE's limit, where known; a layer that is
            not causal; a cache of other heads or batch.
        """
        self._check(x, None)
        with jax.named_scope(type(self).__name__):
            return decode(self, x, cache)

    def _attend(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        mask: jax.Array | None,
        segments: Any,
        **dropout: Any,
    ) -> jax.Array:
        """(*b, n, h, d), (*b, m, g, d), (*b, m, g, d) -> (*b, n, h, d)."""
        return dot_product_attention(
            query,
            key,
            value,
            causal=self.causal,
            window=self.window,
            slopes=self._slopes(),
            bias=self._bias(query.shape[-3], key.shape[-3]),
            mask=mask,
            segments=segments,
            **dropout,
        )

    def _heads(
        self, x: jax.Array, linear: nnx.Linear, norm: Any, positions: Any, *, turn: bool = True
    ) -> jax.Array:
        """(*b, n, d) -> (*b, n, heads, head_dim), normalised and turned.

        Tokens are folded into rows: XLA's CPU backend computes the gradient of the weights of a
        product of three axes at a third of the speed.
        """
        heads = linear.out_features // self.head_dim
        rows = linear(x.reshape(-1, self.in_features))
        split = rows.reshape(*x.shape[:-1], heads, self.head_dim)
        split = split if norm is None else norm(split)
        return self.position.rotate(split, positions) if turn and self.position else split

    def _joined(self, heads: jax.Array) -> jax.Array:
        """(*b, n, h, head_dim) -> (*b, n, d)."""
        rows = self.out(heads.reshape(-1, self.num_heads * self.head_dim))
        return rows.reshape(*heads.shape[:-2], self.in_features)

    def _slopes(self) -> jax.Array | None:
        slopes = self.position and self.position.slopes(self.num_heads)
        return None if slopes is None else jnp.asarray(slopes, jnp.float32)

    def _bias(self, n: int, m: int, offset: int | jax.Array = 0) -> jax.Array | None:
        if self.relative_bias is None:
            return None
        return self.relative_bias.bias(n, m, query_offset=offset)

    def _dropout(self, rngs: Any) -> dict[str, Any]:
        if self.deterministic or not self.dropout_rate:
            return {}
        name = f"{type(self).__name__} with dropout_rate={self.dropout_rate}"
        return {"dropout_rate": self.dropout_rate, "dropout_key": dropout_key(rngs, name)}

    def _positions(
        self, positions: Any, segments: Any, x: jax.Array, context: jax.Array | None
    ) -> tuple[Any, Any]:
        """Those of queries and keys; None: from 0 on."""
        if positions is not None and (context is not None or not isinstance(self.position, RoPE)):
            raise ValueError(
                f"{type(self).__name__} expects `positions` only with position=RoPE() and without "
                f"a context. Got position={self.position} and "
                f"context={None if context is None else context.shape}."
            )
        if positions is not None:
            return positions, positions
        if segments is None or not isinstance(self.position, RoPE):
            return None, None
        return restarting_positions(segments[0]), restarting_positions(segments[1])

    def _pair(self, segments: Any, x: jax.Array, context: jax.Array | None) -> tuple[Any, Any]:
        if context is not None:
            raise ValueError(
                f"{type(self).__name__} expects segments of x and of the context, a pair. "
                f"Got one array of shape {segments.shape}."
            )
        if segments.shape != x.shape[:-1] or not jnp.issubdtype(segments.dtype, jnp.integer):
            raise ValueError(
                f"{type(self).__name__} expects integer segments of shape {x.shape[:-1]}. "
                f"Got {segments.dtype} of shape {segments.shape}."
            )
        return segments, segments

    def _mask(self, mask: Any, sizes: tuple[int, ...]) -> Any:
        """A mask as given, with axes (*b, h, n, m); `sizes` are (*b, n, m)."""
        if mask is None:
            return None
        name, (*batch, n, m) = type(self).__name__, sizes
        if mask.dtype != jnp.bool_:
            raise TypeError(f"{name} expects a boolean mask, True = seen. Got {mask.dtype}.")
        forms = [(*batch, m), (*batch, n, m), (*batch, self.num_heads, n, m)]
        fits = [
            len(form) == mask.ndim
            and all(a in (1, b) for a, b in zip(mask.shape, form, strict=True))
            for form in forms
        ]
        if not any(fits):
            raise ValueError(
                f"{name} expects a mask of shape {forms[0]} (keys), {forms[1]} or {forms[2]}. "
                f"Got {mask.shape}."
            )
        kept, missing = mask.shape[: len(batch)], (1,) * (2 - fits.index(True))
        return mask.reshape(*kept, *missing, *mask.shape[len(batch) :])

    def _check(self, x: jax.Array, context: jax.Array | None) -> None:
        name = type(self).__name__
        for label, given in (("input", x), ("context", context)):
            if given is None:
                continue
            if not jnp.issubdtype(given.dtype, jnp.inexact):
                raise TypeError(f"{name} expects a floating-point {label}. Got {given.dtype}.")
            if given.ndim < 2 or given.shape[-1] != self.in_features:
                raise ValueError(
                    f"{name} expects an {label} of shape (*batch, tokens, {self.in_features}). "
                    f"Got {given.shape}."
                )
        if context is not None and context.shape[:-2] != x.shape[:-2]:
            raise ValueError(
                f"{name} expects a context with the batch axes {x.shape[:-2]} of its input. "
                f"Got {context.shape}."
            )

    def _head_dim(self, head_dim: int | None) -> int:
        if min(self.in_features, self.num_heads) < 1:
            raise ValueError(
                f"{type(self).__name__} expects sizes of at least 1. "
                f"Got in_features={self.in_features}, num_heads={self.num_heads}."
            )
        if head_dim is None and self.in_features % self.num_heads:
            raise ValueError(
                f"{type(self).__name__} expects num_heads that divide in_features="
                f"{self.in_features}, or a head_dim. Got num_heads={self.num_heads}."
            )
        return self.in_features // self.num_heads if head_dim is None else head_dim

    def _check_settings(self) -> None:
        name = type(self).__name__
        if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{name} expects num_kv_heads that divide num_heads={self.num_heads}. "
                f"Got {self.num_kv_heads}."
            )
        if self.head_dim < 1:
            raise ValueError(f"{name} expects a head_dim of at least 1. Got {self.head_dim}.")
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"{name} expects a dropout_rate in [0, 1). Got {self.dropout_rate}.")
        if self.position is not None:
            if not isinstance(self.position, Position):
                raise TypeError(
                    f"{name} expects a position such as RoPE(), ALiBi() or RelativePosition(). "
                    f"Got {self.position!r}."
                )
            self.position.check(self.num_heads, self.head_dim)
