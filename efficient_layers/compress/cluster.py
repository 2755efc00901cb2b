# SPDX-License-Identifier: Apache-2.0
"""Clustering: the weights of a layer share a few numbers, found by k-means."""

import dataclasses
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.edits import replace, values_of
from efficient_layers.compress.technique import Change, Context, Skip, Technique
from efficient_layers.layers.clustered_weight import BITS, stored_bytes
from efficient_layers.ops.kmeans import STARTS, Start, nearest

# A subclass may do more with its kernel than multiply by it (StandardizedConv): these types alone.
_CONVS = (nnx.Conv, layers.Conv, layers.DepthwiseConv)


@dataclasses.dataclass(frozen=True)
class Cluster(Technique):
    """w -> codebook[code]: 2^bits numbers a layer, and a code of `bits` bits a weight.

    Also known as palettisation. The centroids minimise the sum of squared differences, by Lloyd's
    algorithm; `nnx.Linear`, convolutions and `nnx.Embed` become `ClusteredLinear`, `ClusteredConv`,
    `ClusteredEmbedding`. Their codebooks are Params: training afterwards tunes the centroids, the
    gradient of each is the sum over its weights. Biases and norms stay as they are.

    All that match are clustered, the first and the last layer, too, as in the paper: inputs stay
    floats, and centroids lie where the weights are. Leave layers out by the glob. A layer that
    would not take fewer bytes (few weights, many centroids) is skipped.

    Attributes:
      bits: of a code, 2 to 8; stored as they are, 3 bits in 3.
      groups: codebooks a layer, for equal runs of output channels (of an embedding's features).
      keep_zeros: zeros stay exactly zero, in training too, and the other weights share the
        2^bits - 1 other numbers. None: in a layer where more than one weight is zero (after
        `Prune`).
      start: the first centroids, see `ops.kmeans.first_centroids`.
      seed: for start "k-means++".

    Reference: Han et al., *Deep Compression* (arXiv 1510.00149), section 3. Differs from the paper:
    codebooks a group of channels; k-means++ in the place of random starts. DKM (Cho et al., arXiv
    2108.12659), whose assignments are trained, is not built.

    Raises:
      ValueError: a setting out of range; weights that are not finite.
    """

    bits: int = 4
    groups: int = 1
    keep_zeros: bool | None = None
    start: Start = "linear"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"Cluster expects bits from 2 to 8. Got {self.bits!r}.")
        if self.groups < 1 or not isinstance(self.groups, int):
            raise ValueError(f"Cluster expects groups of at least 1. Got {self.groups!r}.")
        if self.start not in STARTS:
            raise ValueError(f"Cluster expects start to be one of {STARTS}. Got {self.start!r}.")

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        for path, module in context.matched:
            if type(module) in _CONVS or isinstance(module, nnx.Linear | nnx.Embed):
                yield self._cluster(path, module)

    def _cluster(self, path: str, module: Any) -> Change | Skip:
        if not path:
            return Skip(path, "the model itself: put it in a Sequential")
        variable = module.embedding if isinstance(module, nnx.Embed) else module.kernel
        weight = np.asarray(variable[...], np.float64)
        if not np.isfinite(weight).all():
            raise ValueError(f"{self} expects finite weights. Got NaN or inf in {path}.")
        if isinstance(module, nnx.Linear) and weight.ndim != 2:
            return Skip(path, f"stacked: {weight.shape}")
        zeros = self.keep_zeros
        if zeros is None:
            zeros = bool((weight == 0).sum() > 1)
        settings = {"bits": self.bits, "groups": self.groups, "keep_zeros": zeros}
        try:
            layer = _layer(module, **settings, start=self.start, seed=self.seed)
        except ValueError as error:  # what this layer cannot do with these settings
            return Skip(path, str(error))
        was = prod(variable.shape) * variable.dtype.itemsize
        if (now := stored_bytes(layer)) >= was:
            return Skip(path, f"codes and codebook would take {now:,} bytes in place of {was:,}")
        edit = replace(path, type(layer).__name__, **_sizes(layer), **settings)
        return Change(path, self._why(layer, weight), (edit,), values_of(path, layer))

    def _why(self, layer: Any, weight: np.ndarray) -> str:
        error = _error(layer, weight) / max(np.square(weight).sum(), np.finfo(np.float64).tiny)
        books = f", {self.groups} codebooks" if self.groups > 1 else ""
        zeros = ", zeros kept" if layer.keep_zeros else ""
        return f"{self.bits} bits{books}{zeros}, squared error {error:.2%} of the weights' squares"


def _error(layer: Any, weight: np.ndarray) -> float:
    """Of all weights to their centroids, squared."""
    books = np.asarray(layer.codebook[...], np.float64).reshape(layer.groups, -1)
    total = 0.0
    for part, book in zip(np.split(weight, layer.groups, axis=-1), books, strict=True):
        moved = part[part != 0] if layer.keep_zeros else part
        total += np.square(moved - book[nearest(moved, book)]).sum()
    return float(total)


def _layer(module: Any, **settings: Any) -> Any:
    if isinstance(module, nnx.Embed):
        return layers.ClusteredEmbedding.from_embedding(module, **settings)
    if isinstance(module, nnx.Linear):
        return layers.ClusteredLinear.from_linear(module, **settings)
    return layers.ClusteredConv.from_conv(module, **settings)


def _sizes(layer: Any) -> dict[str, Any]:
    """The constructor's arguments, without the settings of its clusters."""
    if isinstance(layer, layers.ClusteredConv):
        return layer._settings()
    names: tuple[str, ...] = ("in_features", "out_features", "use_bias", "dtype", "param_dtype")
    if isinstance(layer, layers.ClusteredEmbedding):
        names = ("num_embeddings", "features", "dtype", "param_dtype")
    return {name: getattr(layer, name) for name in names}
