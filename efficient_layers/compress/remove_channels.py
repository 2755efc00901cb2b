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
from efficient_layers.measure.cost import cost
from efficient_layers.models.paths import at

CRITERIA = ("l1", "l2", "bn_scale", "random")
TARGETS = {"macs": "macs", "params": "params", "bytes": "weight_bytes"}  # setting -> of a Cost
STEPS = 8  # of the bisection for a target: the ratio to 0.4 %


class Removal(NamedTuple):
    """Units of a group that go."""

    group: Group
    units: np.ndarray


class Outcome(NamedTuple):
    """What stays of which axis, attributes to set, the smaller model's shapes, lines by path."""

    kept: dict[Axis, np.ndarray]
    attributes: Mapping[str, Mapping[str, Any]]
    small: nnx.Module
    notes: dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class RemoveChannels(Technique):
    """Removes the same share of the units of every group whose producers `path` matches.

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
      macs, params, bytes: in place of `ratio`, what the model may cost afterwards (`measure.cost`):
        a number, or a share below 1 of what it costs now. The ratio is found by bisection.
      averaged: False leaves groups alone that a mean runs over.
      round_to: the number of units kept is rounded up to a multiple of this.
      seed: for `criterion="random"`.

    References: Li et al., *Pruning Filters for Efficient ConvNets* (arXiv 1608.08710), section 3.1,
    for l1; Fang et al., *DepGraph* (arXiv 2301.12900), for l2 over a group; Liu et al.,
    *Network Slimming* (arXiv 1708.06519), section 3, for bn_scale. Differs from the first: l1 is
    over a whole group, not over one filter.

    Raises:
      ValueError: a ratio outside (0, 1), a target that is not positive, none or several of them; a
        criterion that is not known, a round_to below 1. From `apply`: a target that cannot be
        reached, with the best that can.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"example"})

    ratio: float | None = dataclasses.field(default=None, kw_only=True)
    macs: float | None = dataclasses.field(default=None, kw_only=True)
    params: float | None = dataclasses.field(default=None, kw_only=True)
    bytes: float | None = dataclasses.field(default=None, kw_only=True)
    criterion: str = dataclasses.field(default="l1", kw_only=True)
    round_to: int = dataclasses.field(default=1, kw_only=True)
    averaged: bool = dataclasses.field(default=True, kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        goals = {name: getattr(self, name) for name in ("ratio", *TARGETS)}
        given = {name: goal for name, goal in goals.items() if goal is not None}
        if len(given) != 1 or min(given.values()) <= 0 or not 0 < given.get("ratio", 0.5) < 1:
            raise ValueError(
                "RemoveChannels expects 0 < ratio < 1, or a positive macs, params or bytes; one "
                f"of them. Got {given}."
            )
        if self.criterion not in CRITERIA:
            known = ", ".join(CRITERIA)
            raise ValueError(
                f"RemoveChannels expects a criterion of {known}. Got {self.criterion!r}."
            )
        if self.round_to < 1:
            raise ValueError(f"RemoveChannels expects round_to >= 1. Got {self.round_to}.")

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        """Chooses, shrinks, traces again; then one answer a module."""
        found = dimensions(context.model, context.example)
        if self.ratio is None:
            outcome = self._reach(context, found)
        else:
            outcome = self._removed(context, found, self.ratio)
        yield from _answers(context, found, outcome)

    def _reach(self, context: Context, found: Dimensions) -> Outcome:
        """The smallest ratio, to 1 / 2**STEPS, at which the target is met."""
        name, goal = next((n, g) for n in TARGETS if (g := getattr(self, n)) is not None)

        def costs(model: nnx.Module) -> int:
            return getattr(cost(model, context.example), TARGETS[name])

        now = costs(context.model)
        wanted = goal * now if goal < 1 else goal
        low, high = 0.0, 1.0
        best = self._removed(context, found, high)
        if costs(best.small) > wanted:
            raise ValueError(
                f"{self}: {name} cannot fall from {now:,} to {wanted:,.0f}. The best that can be "
                f"reached here is {costs(best.small):,}, with one unit left of every group."
            )
        for _ in range(STEPS):
            middle = (low + high) / 2
            outcome = self._removed(context, found, middle)
            if costs(outcome.small) > wanted:
                low = middle
            else:
                high, best = middle, outcome
        return best

    def _removed(self, context: Context, found: Dimensions, ratio: float) -> Outcome:
        notes: dict[str, list[str]] = {}
        removals = [self._choose(context, group, ratio, notes) for group in found.groups]
        return _settle(context, found, [r for r in removals if r is not None], notes)

    def _choose(
        self, context: Context, group: Group, ratio: float, notes: dict[str, list[str]]
    ) -> Removal | None:
        """What goes of a group; None where nothing does, with a note for its producers."""
        made = producers(context.model, group)
        matched = {path for path, _ in context.matched}
        if not made & matched:
            return None
        lacks = sorted(made - matched)
        scores = self.scores(context.model, group)
        keep = group.units - round(ratio * group.units)
        keep = min(group.units, self.round_to * max(1, -(-keep // self.round_to)))
        if lacks:
            why = f"tied to {', '.join(lacks)}, which the path does not match"
        elif group.averaged and not self.averaged:
            why = "a mean runs over these channels"
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
) -> Outcome:
    """All removals, or else all of them that can go together."""
    done: list[Removal] = []
    attributes, small = shrink(context, found, {})
    tries = [chosen] if chosen else []
    while tries:
        parts = tries.pop(0)
        try:
            attributes, small = shrink(context, found, keeps(found, [*done, *parts]))
            done += parts
        except RefusedError as error:
            if len(parts) > 1:
                half = len(parts) // 2
                tries[:0] = [parts[:half], parts[half:]]
                continue
            for path in owners(parts[0].group):
                notes.setdefault(path, []).append(f"restored: {error}")
    for group, units in done:
        if group.averaged:
            for path in producers(context.model, group):
                notes.setdefault(path, []).append(f"{len(units)} channels that are averaged")
    return Outcome(keeps(found, done), attributes, small, notes)


def _answers(context: Context, found: Dimensions, outcome: Outcome) -> Iterable[Change | Skip]:
    kept, attributes, _, notes = outcome
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
