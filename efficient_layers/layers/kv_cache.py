# SPDX-License-Identifier: Apache-2.0
"""Keys and values of the tokens so far: what a decoder keeps between its steps."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from efficient_layers.ops.cached_attention import quantize_rows


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["key", "value", "key_scale", "value_scale", "length"],
    meta_fields=["rolling"],
)
@dataclass(frozen=True)
class KVCache:
    """`length` tokens in slots 0, 1, 2, ...; in a rolling cache token t is in slot t mod slots.

    A pytree of static shapes: donate it to the jitted step that returns the next one
    (`donate_argnums`), and XLA writes the new tokens in place. Made by the `init_cache` of an
    attention layer, filled by its `decode`. Axes are (*b, g, slots, d), heads first, so that a
    head's keys are one matrix. Of dtype int8, every token and head has a scale of its own
    (max |x| / 127): d + 4 bytes for each d numbers.

    **Overflow.** More tokens than slots raise a ValueError wherever the length can be looked at:
    always outside `jax.jit`, and inside it for a single call with too many tokens. Inside jit the
    length is not known, so nothing can be raised there; `decode` then returns NaN, for this and
    every later token, and `overflowed` is True. NaN needs no change of the caller's program, as
    `jax.experimental.checkify` would, and cannot be taken for a result, as silently overwritten
    slots could. A rolling cache never overflows.

    >>> import jax.numpy as jnp, efficient_layers as el
    >>> cache = el.layers.KVCache.empty((2,), heads=1, slots=8, features=4, dtype=jnp.int8)
    >>> cache = cache.append(jnp.ones((2, 3, 1, 4)), jnp.ones((2, 3, 1, 4)))
    >>> int(cache.length), cache.key.dtype.name, cache.nbytes
    (3, 'int8', 260)
    """

    key: Num[Array, "*b g m d"]
    value: Num[Array, "*b g m d"]
    key_scale: Float[Array, "*b g m"] | None
    value_scale: Float[Array, "*b g m"] | None
    length: Int[Array, ""]
    rolling: bool = False

    @classmethod
    def empty(
        cls,
        batch: tuple[int, ...],
        *,
        heads: int,
        slots: int,
        features: int,
        dtype: Dtype = jnp.float32,
        rolling: bool = False,
    ) -> Self:
        """Without tokens.

        Raises:
          ValueError: no slots.
          TypeError: a dtype other than int8 and the floating ones.
        """
        if slots < 1:
            raise ValueError(f"KVCache expects at least one slot. Got {slots}.")
        quantized = jnp.dtype(dtype) == jnp.int8
        if not quantized and not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"KVCache expects int8 or a floating dtype. Got {jnp.dtype(dtype)}.")
        shape = (*batch, heads, slots, features)

        def scale() -> jax.Array | None:
            return jnp.zeros(shape[:-1], jnp.float32) if quantized else None

        zero = jnp.zeros((), jnp.int32)
        arrays = jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)  # two buffers, each donated once
        return cls(*arrays, scale(), scale(), zero, rolling)

    @property
    def slots(self) -> int:
        """How many tokens fit."""
        return self.key.shape[-2]

    @property
    def nbytes(self) -> int:
        """What the cache occupies, scales and length included."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    @property
    def overflowed(self) -> Bool[Array, ""]:
        """Whether tokens were lost."""
        return jnp.asarray(not self.rolling) & (self.length > self.slots)

    @property
    def positions(self) -> Int[Array, " m"]:
        """Of the token in each slot; negative where there is none."""
        slot = jnp.arange(self.slots, dtype=jnp.int32)
        if not self.rolling:
            return jnp.where(slot < self.length, slot, -1)
        last = self.length - 1
        return last - (last - slot) % self.slots

    @property
    def scales(self) -> tuple[jax.Array, jax.Array] | None:
        """Of int8 keys and values."""
        if self.key_scale is None or self.value_scale is None:
            return None
        return self.key_scale, self.value_scale

    def append(self, key: Float[Array, "*b n g d"], value: Float[Array, "*b n g d"]) -> Self:
        """The cache with n more tokens.

        Raises:
          ValueError: shapes that do not fit; more tokens than there is room for, where known.
        """
        self._check(key, value)
        new: dict[str, Any] = {}
        for name, rows in (("key", key), ("value", value)):
            rows = jnp.moveaxis(rows, -3, -2)
            if self.scales is None:
                new[name] = rows
            else:
                new[name], new[f"{name}_scale"] = quantize_rows(rows)
        written: dict[str, Any] = {
            name: self._write(getattr(self, name), rows) for name, rows in new.items()
        }
        return dataclasses.replace(self, **written, length=self.length + key.shape[-3])

    def arrays(self, dtype: Dtype) -> tuple[jax.Array, jax.Array]:
        """Keys and values as (*b, m, g, d) of `dtype`."""
        pairs = zip((self.key, self.value), self.scales or (None, None), strict=True)
        wide = (x if s is None else x.astype(s.dtype) * s[..., None] for x, s in pairs)
        key, value = (jnp.moveaxis(x.astype(dtype), -3, -2) for x in wide)
        return key, value

    def _write(self, to: jax.Array, rows: jax.Array) -> jax.Array:
        """`rows` (*b, g, n, ...) from slot `length` on."""
        axis, rows = len(self.key.shape) - 2, rows.astype(to.dtype)
        n = rows.shape[axis]
        if self.rolling and n > 1:
            at = (self.length + jnp.arange(n, dtype=jnp.int32)) % self.slots
            return to.at[(*[slice(None)] * axis, at)].set(rows, unique_indices=True)
        start = self.length % self.slots if self.rolling else self.length
        return lax.dynamic_update_slice_in_dim(to, rows, start, axis)

    def _check(self, key: jax.Array, value: jax.Array) -> None:
        *batch, heads, _, features = self.key.shape
        n = key.shape[-3] if key.ndim > 2 else 0
        expected = (*batch, n, heads, features)
        if key.shape != expected or value.shape != expected:
            raise ValueError(
                f"KVCache expects keys and values of shape {(*batch, 'n', heads, features)}. "
                f"Got {key.shape} and {value.shape}."
            )
        if self.rolling and n > self.slots:
            raise ValueError(
                f"A rolling KVCache takes at most its {self.slots} slots at once. Got {n} tokens."
            )
        length = 0 if isinstance(self.length, jax.core.Tracer) else int(self.length)
        if not self.rolling and length + n > self.slots:
            raise ValueError(
                f"KVCache expects at most {self.slots} tokens. Got {n} more after {length}: make "
                "it with a larger max_length."
            )
