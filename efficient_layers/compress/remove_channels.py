# SPDX-License-Identifier: Apache-2.0
"""Structured removal: the least important channels, hidden features and heads leave the arrays."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from flax import nnx

from efficient_layers.compress.dimensions import Axis, Dimensions, Group, dimensions
from efficient_layers.compress.edits import resize
from efficient_layers.compress.shrink import RefusedError, shrink
from efficient_layers.compress.technique import Change, Context, Edit, Skip, Technique
from efficient_layers.models.paths import at

CRITERIA = ("l1", "l2", "bn_scale", "random")


class Removal(NamedTuple):
    """Units of a group that go."""

    group: Group
    units: np.ndarray


@dataclasses.dataclass(frozen=True)
class RemoveChannels(Technique):
    """Removes `ratio` of the units of every group whose producers `path` matches.

    A unit is whatever can be removed alone (`compress/dimensions.py`): a channel with its filter,
    its normalisation and what reads it, in every layer that a residual stream ties to it; a hidden
    feature; a head; a group of a grouped convolution. A group's producers are the modules whose
    kernels put out its channels; all have to match. Nothing of the model's input or output is
    removed. The score of a unit, over all of its parameters w (its filters' outputs and inputs):

        l1: sum |w|    l2: sqrt(sum w^2)    bn_scale: sum |scale| of its BatchNorms    random

    The smaller model is traced again; a group whose removal breaks the trace, or after which the
    program ties other channels than before (a literal size in somebody's code), is restored and
    logged. Removing units whose parameters are all 0 changes no output, except where a mean runs
    over them (layer normalisation over a residual stream; the log says "averaged").

    Args:
      ratio: share of the units that go; every group keeps at least one.
      round_to: the number of units kept is rounded up to a multiple of this.
      seed: for `criterion="random"`.

    References: Li et al., *Pruning Filters for Efficient ConvNets* (arXiv 1608.08710), section 3.1,
    for l1; Fang et al., *DepGraph* (arXiv 2301.12900), equation 4, for l2 over a group; Liu et al.,
    *Network Slimming* (arXiv 1708.06519), section 3, for bn_scale. Differs from the first: l1 is
    over a whole group, not over one filter.

    Raises:
      ValueError: a ratio outside (0, 1), a criterion that is not known, a round_to below 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"example"})

    ratio: float = dataclasses.field(kw_only=True)
    criterion: str = dataclasses.field(default="l1", kw_only=True)
    round_to: int = dataclasses.field(default=1, kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError(f"RemoveChannels expects 0 < ratio < 1. Got {self.ratio}.")
        if self.criterion not in CRITERIA:
            known = ", ".join(CRITERIA)
            raise ValueError(
                f"RemoveChannels expects criterion of {known}. Got {self.criterion!r}."
            )
        if self.round_to < 1:
            raise ValueError(f"RemoveChannels expects round_to >= 1. Got {self.round_to}.")

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        """Chooses, shrinks, traces again; then one answer a module."""
        found = dimensions(context.model, context.example)
        notes: dict[str, list[str]] = {}
        chosen = []
        for group in found.groups:
            removal = self._choose(context, group, notes)
            if removal is not None:
                chosen.append(removal)
        kept, attributes = _settle(context, found, chosen, notes)
        yield from _answers(context, found, kept, attributes, notes)

    def _choose(
        self, context: Context, group: Group, notes: dict[str, list[str]]
    ) -> Removal | None:
        """What goes of a group; None where nothing does, with a note for its producers."""
        made = producers(context.model, group)
        matched = {path for path, _ in context.matched}
        if not made & matched:
            return None
        lacks = sorted(made - matched)
        scores = self.scores(context.model, group)
        keep = group.units - round(self.ratio * group.units)
        keep = min(group.units, self.round_to * max(1, -(-keep // self.round_to)))
        if lacks:
            why = f"tied to {', '.join(lacks)}, which the path does not match"
        elif scores is None:
            why = "no BatchNorm scales these channels"
        elif keep == group.units:
            why = f"all of {group.units} channels are kept"
        else:
            return Removal(group, np.sort(np.argsort(scores, kind="stable")[: group.units - keep]))
        for path in made & matched:
            notes.setdefault(path, []).append(why)
        return None

    def scores(self, model: nnx.Module, group: Group) -> np.ndarray | None:
        """The importance of every unit; None where the criterion has nothing to look at."""
        if self.criterion == "random":
            first = int(next(iter(group.members.values())).min())
            return np.random.default_rng([self.seed, first]).random(group.units)
        power = 2 if self.criterion == "l2" else 1
        total, seen = np.zeros(group.units), False
        for (path, axis), channels in group.members.items():
            owner, _, name = path.rpartition("/")
            variable = at(model, path)
            if not isinstance(variable, nnx.Param):
                continue
            norm = name == "scale" and isinstance(at(model, owner), nnx.BatchNorm)
            if self.criterion == "bn_scale" and not norm:
                continue
            seen = True
            size = np.abs(np.asarray(variable[...], np.float64)) ** power
            others = tuple(a for a in range(size.ndim) if a != axis)
            total += size.sum(others)[channels].sum(1)
        return total ** (1 / power) if seen else None


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


def keeps(found: Dimensions, removals: Sequence[Removal]) -> dict[Axis, np.ndarray]:
    """For every axis that loses something, the indices that stay."""
    gone: dict[Axis, list[np.ndarray]] = {}
    for group, units in removals:
        for axis, channels in group.members.items():
            gone.setdefault(axis, []).append(channels[units].ravel())
    return {
        axis: np.setdiff1d(np.arange(len(found.roots[axis])), np.concatenate(lines))
        for axis, lines in gone.items()
    }


def _settle(
    context: Context, found: Dimensions, chosen: list[Removal], notes: dict[str, list[str]]
) -> tuple[dict[Axis, np.ndarray], dict[str, Mapping[str, Any]]]:
    """What stays where, and attributes to set: of all, or else of all that can go together."""
    kept: list[Removal] = []
    attributes: dict[str, Mapping[str, Any]] = {}
    tries = [chosen] if chosen else []
    while tries:
        parts = tries.pop(0)
        try:
            attributes = shrink(context, found, keeps(found, [*kept, *parts]))
            kept += parts
        except RefusedError as error:
            if len(parts) > 1:
                half = len(parts) // 2
                tries[:0] = [parts[:half], parts[half:]]
                continue
            for path in owners(parts[0].group):
                notes.setdefault(path, []).append(f"restored: {error}")
    for group, units in kept:
        if group.averaged:
            for path in producers(context.model, group):
                notes.setdefault(path, []).append(f"{len(units)} channels that are averaged")
    return keeps(found, kept), attributes


def _answers(
    context: Context,
    found: Dimensions,
    kept: dict[Axis, np.ndarray],
    attributes: Mapping[str, Mapping[str, Any]],
    notes: Mapping[str, list[str]],
) -> Iterable[Change | Skip]:
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
