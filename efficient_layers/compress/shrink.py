# SPDX-License-Identifier: Apache-2.0
"""A removal tried on shapes alone: arrays resized, attributes set, the model traced again."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from efficient_layers.compress.dimensions import Axis, Dimensions, dimensions
from efficient_layers.compress.edits import module_at, replay, resize
from efficient_layers.compress.source_line import source_line
from efficient_layers.compress.static_sizes import sizes, unknown
from efficient_layers.compress.technique import Context
from efficient_layers.compress.ties import FROZEN
from efficient_layers.models.paths import at, modules

Attributes = dict[str, Mapping[str, Any]]


class RefusedError(Exception):
    """A removal that the model does not bear; the message says why."""


def shrink(
    context: Context, found: Dimensions, kept: Mapping[Axis, np.ndarray], *, check: bool = True
) -> tuple[Attributes, nnx.Module]:
    """The attributes that change, by path, when only the indices in `kept` are left; the shapes.

    `check`: whether the smaller model is traced and compared.

    Raises:
      RefusedError: an unknown module owns a size that changes, the smaller model cannot be
        traced, or its program ties channels that were not tied before.
    """
    small = _abstract(context.model)
    if not kept:
        return {}, small
    changed = _resize(small, found, kept)
    reads = {path: _left(roots, found, kept) for path, roots in found.inputs.items()}
    attributes = _set_sizes(small, changed, reads)
    if not check:
        return attributes, small
    try:
        after = dimensions(small, context.example, found.decisions)
    except Exception as error:  # whatever somebody's code raises
        raise RefusedError(source_line(error)) from error
    _compare(found, after, kept)
    return attributes, small


def _abstract(model: nnx.Module) -> nnx.Module:
    graphdef, state = nnx.split(model)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    return nnx.merge(graphdef, shapes, copy=True)


def _resize(
    small: nnx.Module, found: Dimensions, kept: Mapping[Axis, np.ndarray]
) -> dict[str, set[int]]:
    """Path of every module above a resized array -> the sizes that changed in it."""
    changed: dict[str, set[int]] = {}
    for path in dict.fromkeys(path for path, _ in kept):
        shape = list(at(small, path).shape)
        gone = {axis: len(kept[path, axis]) for axis in range(len(shape)) if (path, axis) in kept}
        owner = path
        while owner:
            owner = owner.rpartition("/")[0]
            changed.setdefault(owner, set()).update(shape[axis] for axis in gone)
        for axis, size in gone.items():
            shape[axis] = size
        replay(small, [resize(path, shape)])
    return changed


def _left(roots: np.ndarray, found: Dimensions, kept: Mapping[Axis, np.ndarray]) -> int:
    """How many of these channels stay."""
    gone: set[int] = set()
    for axis, indices in kept.items():
        gone |= set(np.delete(found.roots[axis], indices).tolist())
    return int((~np.isin(roots, list(gone))).sum())


def _set_sizes(
    small: nnx.Module, changed: Mapping[str, set[int]], reads: Mapping[str, int]
) -> Attributes:
    """Sets and returns the attributes that are no longer right, children before parents."""
    attributes: Attributes = {}
    paths: Iterable[str] = [path for path, _ in modules(small) if path in changed]
    for path in [*paths, *([""] if "" in changed else [])]:
        module = module_at(small, path)
        name = unknown(module, changed[path])
        if name is not None:
            raise RefusedError(f"{path or 'the model'}: {name} is of no known module")
        wanted = sizes(module, reads.get(f"{path}/kernel" if path else "kernel")) or {}
        new = {key: value for key, value in wanted.items() if getattr(module, key, None) != value}
        for key, value in new.items():
            setattr(module, key, value)
        if new:
            attributes[path] = new
    return attributes


def _compare(found: Dimensions, after: Dimensions, kept: Mapping[Axis, np.ndarray]) -> None:
    """Raises where the smaller program ties what was not tied: its slices now fall elsewhere."""
    partners: dict[int, int] = {}
    for axis, roots in after.roots.items():
        before = found.roots[axis][kept[axis]] if axis in kept else found.roots[axis]
        # Axes of size 1 tie nothing. One that now stays as a whole cannot be cut elsewhere.
        if len(before) == 1 or (not roots.any() and before.all()):
            continue
        for new, old in set(zip(roots.tolist(), before.tolist(), strict=True)):
            if old == FROZEN:  # what stayed, and now need not (one head, one group left)
                continue
            if new == FROZEN or partners.setdefault(new, old) != old:
                raise RefusedError(
                    f"the program then ties other channels of {axis[0]} than before "
                    "(it cuts at a fixed place)"
                )
