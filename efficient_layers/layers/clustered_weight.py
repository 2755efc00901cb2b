# SPDX-License-Identifier: Apache-2.0
"""The weight side of clustered layers: a code a weight, packed, and the few numbers they share."""

from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.layers.quant_param import QuantParam
from efficient_layers.ops.codebook import picked
from efficient_layers.ops.kmeans import STARTS, Start, first_centroids, kmeans, nearest
from efficient_layers.ops.pack import pack_indices, unpack_indices

BITS = range(2, 9)


class ClusteredWeight:
    """`codes` (uint8, several a byte) and `codebook`, mixed into a layer.

    w[..., c] = codebook[c // (channels / groups)][codes[..., c]]. The codebook is a `nnx.Param` of
    one axis, groups * (2^bits - keep_zeros), so what looks for matrices (pruning, weight decay by
    rank) leaves it alone.
    """

    bits: int
    groups: int
    keep_zeros: bool
    codes: Any
    codebook: Any

    def _set_clusters(self, bits: int, groups: int, keep_zeros: bool, channels: int) -> None:
        name = type(self).__name__
        if bits not in BITS:
            raise ValueError(f"{name} expects bits from 2 to 8. Got {bits}.")
        if groups < 1 or channels % groups:
            raise ValueError(
                f"{name} expects groups that divide its {channels} channels. Got {groups}."
            )
        self.bits = bits
        self.groups = groups
        self.keep_zeros = keep_zeros

    def _draw(self, weight: jax.Array) -> None:
        """Takes a random weight: centroids evenly spaced over its range, without k-means."""
        parts = weight.reshape(-1, self.groups, weight.shape[-1] // self.groups)
        low, high = (f(parts, axis=(0, 2), keepdims=True) for f in (jnp.min, jnp.max))
        count = 2**self.bits - self.keep_zeros
        step = jnp.maximum((high - low) / (count - 1), jnp.finfo(weight.dtype).tiny)
        codes = jnp.round((parts - low) / step).astype(jnp.uint8) + jnp.uint8(self.keep_zeros)
        codebook = low + step * jnp.arange(count, dtype=weight.dtype)
        self._store(codes.reshape(weight.shape), codebook.reshape(-1))

    def _store(self, codes: Any, codebook: Any) -> None:
        self.codes = QuantParam(_packed(codes, self.bits), logical_shape=tuple(codes.shape))
        self.codebook = nnx.Param(codebook)

    def _picked(self, codebook: jax.Array, codes: jax.Array) -> jax.Array:
        """The weights of packed `codes`, in the type of `codebook`."""
        channels = self.codes.get_metadata("logical_shape")[-1]
        codes = unpack_indices(codes, self.bits, channels)
        return picked(codebook, codes, groups=self.groups, zero=self.keep_zeros)

    def _clusters(self) -> dict[str, Any]:
        """What the constructor was given."""
        return {"bits": self.bits, "groups": self.groups, "keep_zeros": self.keep_zeros}


def clustered(
    weight: np.ndarray,
    *,
    bits: int,
    groups: int = 1,
    keep_zeros: bool = False,
    start: Start = "linear",
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """(codes of `weight`'s shape, codebook), by k-means within each group of channels.

    With `keep_zeros`, zeros get code 0 and the other weights the 2^bits - 1 centroids.

    Raises:
      ValueError: an unknown `start`; weights that are not finite.
    """
    if start not in STARTS:
        raise ValueError(f"Clusters expect start to be one of {STARTS}. Got {start!r}.")
    weight = np.asarray(weight, np.float64)
    if not np.isfinite(weight).all():
        raise ValueError("Clusters expect finite weights. Got NaN or inf.")
    count = 2**bits - keep_zeros
    codes = np.zeros(weight.shape, np.uint8)
    books = np.zeros((groups, count))
    channels = weight.shape[-1] // groups
    for group in range(groups):
        place = (..., slice(group * channels, (group + 1) * channels))
        part = weight[place]
        chosen = part != 0 if keep_zeros else np.full(part.shape, True)
        if chosen.any():
            values = part[chosen]
            first = first_centroids(values, count, start, seed=seed + group)
            books[group] = kmeans(values, first)
            codes[place][chosen] = nearest(values, books[group]) + keep_zeros
    return codes, books.reshape(-1)


def fill(layer: Any, codes: np.ndarray, codebook: np.ndarray) -> None:
    """Puts clusters into an abstract layer."""
    layer.codes.set_value(_packed(jnp.asarray(codes), layer.bits))
    layer.codebook.set_value(jnp.asarray(codebook, layer.param_dtype))


def stored_bytes(layer: Any) -> int:
    """Of codes and codebook, as they are written."""
    codes, codebook = layer.codes.get_value(), layer.codebook.get_value()
    return prod(codes.shape) + prod(codebook.shape) * codebook.dtype.itemsize


_packed = partial(jax.jit, static_argnums=1)(pack_indices)  # one program for all layers of a shape
