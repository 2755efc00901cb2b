# SPDX-License-Identifier: Apache-2.0
"""Primitives that give a value another shape: what becomes of the entries of its axes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from efficient_layers.compress.ties import ANY, FIXED, FROZEN, Entry, Part, Ties, reshape

Label = list[Entry]


def elementwise(ties: Ties, labels: list[Label]) -> Label:
    """Index i of the result comes from index i of every operand that is no scalar."""
    arrays = [label for label in labels if label]
    result = arrays[0] if arrays else []
    for label in arrays[1:]:
        result = [ties.tie(a, b) for a, b in zip(result, label, strict=True)]
    return result


def _optimization_barrier(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    return labels


def _broadcast_in_dim(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    result: Label = [ANY] * len(eqn.params["shape"])
    for entry, axis, size in zip(
        labels[0], eqn.params["broadcast_dimensions"], eqn.invars[0].aval.shape, strict=True
    ):
        result[axis] = ANY if size == 1 else entry
    return [result]


def _reshape(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    old, new = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    return [reshape(ties, labels[0], old, new)]


def _squeeze(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    gone = eqn.params["dimensions"]
    return [[entry for axis, entry in enumerate(labels[0]) if axis not in gone]]


def _expand_dims(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    result = list(labels[0])
    for axis in sorted(eqn.params["dimensions"]):
        result.insert(axis, ANY)
    return [result]


def _transpose(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    return [[labels[0][axis] for axis in eqn.params["permutation"]]]


def _iota(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    own = eqn.params["dimension"]
    return [[FIXED if axis == own else ANY for axis in range(len(eqn.params["shape"]))]]


def _rev(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    turned = eqn.params["dimensions"]
    return [[ties.fixed(e) if a in turned else e for a, e in enumerate(labels[0])]]


def _concatenate(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    axis, sizes = eqn.params["dimension"], [v.aval.shape for v in eqn.invars]
    result = elementwise(ties, [[e for a, e in enumerate(m) if a != axis] for m in labels])
    for label in labels:  # a split of one may be a split of another
        ties.line(label[axis])
    parts = [ties.settled(label[axis]) for label in labels]
    whole: Entry = FIXED
    if any(isinstance(part, np.ndarray) for part in parts):
        lines = [
            part if isinstance(part, np.ndarray) else np.full(shape[axis], FROZEN)
            for part, shape in zip(parts, sizes, strict=True)
        ]
        whole = np.concatenate(lines)
    return [[*result[:axis], whole, *result[axis:]]]


def _stack(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    result = elementwise(ties, labels)
    axis = eqn.params["axis"]
    return [[*result[:axis], FIXED, *result[axis:]]]


def _slice(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or [1] * len(starts)
    result = []
    for entry, size, *cut in zip(
        labels[0], eqn.invars[0].aval.shape, starts, limits, steps, strict=True
    ):
        if cut != [0, size, 1]:
            entry = ties.settled(entry)
            if isinstance(entry, Part):  # a fixed number of these: queries, keys, values
                ties.freeze(entry)
            entry = ties.settled(entry)
            entry = entry[slice(*cut)] if isinstance(entry, np.ndarray) else entry
        result.append(entry)
    return [result]


def _split(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    axis, sizes = eqn.params["axis"], eqn.params["sizes"]
    entry = ties.line(labels[0][axis])
    pieces = [entry] * len(sizes)
    if isinstance(entry, np.ndarray):
        pieces = np.split(entry, np.cumsum(sizes)[:-1])
    return [[*labels[0][:axis], piece, *labels[0][axis + 1 :]] for piece in pieces]


def _pad(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    """What is added has a size that stands in somebody's code."""
    result = []
    for entry, (low, high, inner) in zip(labels[0], eqn.params["padding_config"], strict=True):
        if (low, high, inner) != (0, 0, 0):
            entry = ties.line(entry)
            if min(low, high) < 0 or inner or not isinstance(entry, np.ndarray):
                entry = ties.fixed(entry)
            else:
                entry = np.pad(entry, (low, high), constant_values=FROZEN)
        result.append(entry)
    return [result]


def _dynamic_slice(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    sizes, whole = eqn.params["slice_sizes"], eqn.invars[0].aval.shape
    return [
        [e if n == w else ties.fixed(e) for e, n, w in zip(labels[0], sizes, whole, strict=True)]
    ]


def _gather(ties: Ties, eqn: Any, labels: list[Label]) -> list[Label]:
    """Rows of a table: the axes taken whole pass, the others stay."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    whole = eqn.invars[0].aval.shape
    batched = tuple(getattr(numbers, "operand_batching_dims", ()))
    window = []
    for axis, entry in enumerate(labels[0]):
        if sizes[axis] != whole[axis] or axis in numbers.collapsed_slice_dims + batched:
            entry = ties.fixed(entry)
        if axis not in numbers.collapsed_slice_dims + batched:
            window.append(entry)
    for entry in labels[1]:
        ties.fixed(entry)
    result: Label = [FIXED] * len(eqn.outvars[0].aval.shape)
    for axis, entry in zip(numbers.offset_dims, window, strict=True):
        result[axis] = entry
    return [result]


SHAPES: dict[str, Callable[[Ties, Any, list[Label]], list[Label]]] = {
    "optimization_barrier": _optimization_barrier,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "expand_dims": _expand_dims,
    "transpose": _transpose,
    "iota": _iota,
    "rev": _rev,
    "concatenate": _concatenate,
    "stack": _stack,
    "slice": _slice,
    "split": _split,
    "pad": _pad,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
}
