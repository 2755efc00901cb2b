# SPDX-License-Identifier: Apache-2.0
"""Units that were chosen, taken out of a model: what can go together, and the edits for it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from efficient_layers.compress.dimensions import Axis, Dimensions, Group
from efficient_layers.compress.edits import resize
from efficient_layers.compress.shrink import RefusedError, shrink
from efficient_layers.compress.technique import Change, Context, Edit, Skip
from efficient_layers.models.paths import at

Notes = dict[str, list[str]]  # lines for the log, by path


class Removal(NamedTuple):
    """Units of a group that go; `number` is the group's place in `Dimensions.groups`."""

    number: int
    group: Group
    units: np.ndarray


class Outcome(NamedTuple):
    """What goes, attributes to set, the smaller model's shapes, lines for the log."""

    removals: tuple[Removal, ...]
    attributes: Mapping[str, Mapping[str, Any]]
    small: nnx.Module
    notes: Notes


def producers(model: nnx.Module, group: Group) -> set[str]:
    """Modules whose kernels put out the group's channels; of a group without kernels, all."""
    makers = set()
    for path, axis in group.members:
        owner, _, name = path.rpartition("/")
        rank = len(at(model, path).shape)
        if rank > 1 and not (name == "kernel" and axis == rank - 2):
            makers.add(owner)
    return makers or owners(group)


def owners(group: Group) -> set[str]:
    """All modules whose arrays the group's channels are in."""
    return {path.rpartition("/")[0] for path, _ in group.members}


def keeps(found: Dimensions, removals: Iterable[Removal]) -> dict[Axis, np.ndarray]:
    """For every axis that loses something, the indices that stay."""
    gone: dict[Axis, list[np.ndarray]] = {}
    for _, group, units in removals:
        for axis, channels in group.members.items():
            gone.setdefault(axis, []).append(channels[units].ravel())
    return {
        axis: np.setdiff1d(np.arange(len(found.roots[axis])), np.concatenate(lines))
        for axis, lines in gone.items()
    }


def settle(
    context: Context,
    found: Dimensions,
    chosen: Sequence[Removal],
    notes: Notes,
    refused: dict[int, str],
    *,
    check: bool = True,
) -> Outcome:
    """All removals, or else all of them that can go together.

    `refused`: number of a group that the model does not bear -> why; those found are added, and
    those known are not tried. Without `check` the smaller model is not traced, and all goes.

    Raises:
      RefusedError: without `check`, a removal that is refused before any trace.
    """
    done: list[Removal] = []
    wanted = [removal for removal in chosen if removal.number not in refused]
    attributes, small = shrink(context, found, {}, check=check)
    tries = [wanted] if wanted else []
    while tries:
        parts = tries.pop(0)
        try:
            attributes, small = shrink(context, found, keeps(found, [*done, *parts]), check=check)
            done += parts
        except RefusedError as error:
            if not check:
                raise
            if len(parts) > 1:
                half = len(parts) // 2
                tries[:0] = [parts[:half], parts[half:]]
                continue
            refused[parts[0].number] = str(error)
    for number, why in refused.items():
        for path in owners(found.groups[number]):
            notes.setdefault(path, []).append(f"restored: {why}")
    for _, group, units in done:
        if group.averaged:
            for path in producers(context.model, group):
                notes.setdefault(path, []).append(f"{len(units)} channels that are averaged")
    return Outcome(tuple(done), attributes, small, notes)


def answers(context: Context, found: Dimensions, outcome: Outcome) -> Iterable[Change | Skip]:
    """A change a module that gets smaller, a skip a matched one that stays."""
    removals, attributes, _, notes = outcome
    kept = keeps(found, removals)
    edits: dict[str, list[Edit]] = {}
    values: dict[str, dict[str, np.ndarray]] = {}
    whys: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for path, _ in kept):
        owner, _, name = path.rpartition("/")
        value = np.asarray(at(context.model, path)[...])
        before = value.shape
        for axis in range(value.ndim):
            if (path, axis) in kept:
                value = value.take(kept[path, axis], axis)
        edits.setdefault(owner, []).append(resize(path, value.shape))
        values.setdefault(owner, {})[path] = value
        whys.setdefault(owner, []).append(f"{name} {_shape(before)} -> {_shape(value.shape)}")
    for path, pairs in attributes.items():
        edits.setdefault(path, []).append({"op": "set", "path": path, "attributes": dict(pairs)})
    for path, ops in edits.items():
        why = "; ".join([*whys.get(path, []), *dict.fromkeys(notes.get(path, []))])
        why = why or "sizes of what is inside"
        yield Change(path, why, tuple(ops), values.get(path, {}))
    frozen = "tied to the model's input, output or a fixed size"
    if found.not_understood:
        frozen += f", or to what is not understood ({', '.join(found.not_understood)})"
    for path, module in context.matched:
        owns = any(isinstance(value, nnx.Variable) for value in vars(module).values())
        if path not in edits and (owns or path in notes):
            yield Skip(path, "; ".join(dict.fromkeys(notes.get(path, [frozen]))))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
