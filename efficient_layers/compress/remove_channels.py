# SPDX-License-Identifier: Apache-2.0
"""Structured removal: the least important channels, hidden features and heads leave the arrays."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from flax import nnx

from efficient_layers.compress.apply import with_changes
from efficient_layers.compress.dimensions import Dimensions, Group, dimensions
from efficient_layers.compress.removals import (
    Notes,
    Outcome,
    Removal,
    answers,
    producers,
    settle,
)
from efficient_layers.compress.target import GOALS, goal_of, reach
from efficient_layers.compress.technique import Change, Context, Skip, Technique
from efficient_layers.compress.unit_scores import NEEDS, unit_scores
from efficient_layers.measure.cost import cost

CRITERIA = tuple(NEEDS)
SCOPES = ("group", "global")
LEAST = 0.1  # of its units that a group keeps with scope="global"

Scores = Sequence[np.ndarray | None]  # a group's, or None where the criterion sees nothing


@dataclasses.dataclass(frozen=True)
class RemoveChannels(Technique):
    """Removes the least important units of every group whose producers `path` matches.

    A unit is whatever can be removed alone (`compress/dimensions.py`): a channel with its filter,
    its normalisation and what reads it, in every layer that a residual stream ties to it; a hidden
    feature; a head; a group of a grouped convolution. A group's producers are the modules whose
    kernels put out its channels; all have to match. Nothing of the model's input or output is
    removed. Scores of units: `compress/unit_scores.py`.

    The smaller model is traced again; a group whose removal breaks the trace, or after which the
    program ties other channels than before (a literal size in somebody's code), is restored and
    logged. Removing units whose parameters are all 0 changes no output, except where a mean runs
    over them (layer normalisation over a residual stream; the log says "averaged").

    Args:
      ratio: share of the units that go; every group keeps at least one.
      macs, params, bytes, latency_ms: in place of `ratio`, what the model may cost afterwards
        (`measure.cost`; latency as measured on this device): a number, or a share below 1 of what
        it costs now. The ratio is found by bisection (`compress/target.py`).
      criterion: l1, l2, bn_scale, random; taylor, which needs data and loss; activation: data.
      scope: "group": the same share goes of each. "global": the lowest of all units go, after each
        group's scores are divided by their mean.
      least: share of its units that every group keeps, one at the least. None: 0, and 0.1 with
        scope="global", which else may empty a group down to its last unit.
      averaged: False leaves groups alone that a mean runs over.
      round_to: the number of units kept is rounded up to a multiple of this.
      seed: for `criterion="random"`.

    References: Li et al., *Pruning Filters for Efficient ConvNets* (arXiv 1608.08710), section 3.1,
    for l1; Fang et al., *DepGraph* (arXiv 2301.12900), for l2 over a group; Liu et al.,
    *Network Slimming* (arXiv 1708.06519), section 3, for bn_scale; Molchanov et al., *Importance
    Estimation for Neural Network Pruning* (arXiv 1906.10771), equation 8, for taylor; Molchanov et
    al. (arXiv 1611.06440), section 2.2, for activation. Differs from the first: l1 is over a whole
    group, not over one filter.

    Raises:
      ValueError: a ratio outside (0, 1), a target that is not positive, none or several of them; a
        criterion or a scope that is not known, a round_to below 1, a least outside [0, 1). From
        `apply`: a target that cannot be reached, with the best that can.
    """

    ratio: float | None = dataclasses.field(default=None, kw_only=True)
    macs: float | None = dataclasses.field(default=None, kw_only=True)
    params: float | None = dataclasses.field(default=None, kw_only=True)
    bytes: float | None = dataclasses.field(default=None, kw_only=True)
    latency_ms: float | None = dataclasses.field(default=None, kw_only=True)
    criterion: str = dataclasses.field(default="l1", kw_only=True)
    scope: str = dataclasses.field(default="group", kw_only=True)
    least: float | None = dataclasses.field(default=None, kw_only=True)
    round_to: int = dataclasses.field(default=1, kw_only=True)
    averaged: bool = dataclasses.field(default=True, kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        goal_of(self, "ratio")
        if self.ratio is not None and not self.ratio < 1:
            raise ValueError(
                f"RemoveChannels expects 0 < ratio < 1, a share. Got ratio={self.ratio}."
            )
        for name, known in {"criterion": CRITERIA, "scope": SCOPES}.items():
            if (got := getattr(self, name)) not in known:
                raise ValueError(
                    f"RemoveChannels expects a {name} of {', '.join(known)}. Got {got!r}."
                )
        if self.round_to < 1:
            raise ValueError(f"RemoveChannels expects round_to >= 1. Got {self.round_to}.")
        if self.least is not None and not 0 <= self.least < 1:
            raise ValueError(f"RemoveChannels expects 0 <= least < 1. Got {self.least}.")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return NEEDS[self.criterion] | {"example"}

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        """Chooses, shrinks, traces again; then one answer a module."""
        found = dimensions(context.model, context.example)
        scores = unit_scores(self.criterion, context, found.groups, seed=self.seed)
        if self.ratio is None:
            outcome = self._reach(context, found, scores)
        else:
            outcome = settle(context, found, *self.choose(context, found, scores, self.ratio), {})
        yield from answers(context, found, outcome)

    def choose(
        self, context: Context, found: Dimensions, scores: Scores, ratio: float
    ) -> tuple[list[Removal], Notes]:
        """What goes of which group, and notes for the producers of those that stay whole."""
        matched = {path for path, _ in context.matched}
        free: list[int] = []
        notes: Notes = {}
        for number, group in enumerate(found.groups):
            made = producers(context.model, group)
            if not made & matched:
                continue
            if why := self._stays(group, made - matched, scores[number]):
                _note(notes, made & matched, why)
            else:
                free.append(number)
        removals = []
        known = {number: s for number in free if (s := scores[number]) is not None}
        for number, gone in self._counts(known, ratio).items():
            group = found.groups[number]
            units = np.sort(np.argsort(known[number], kind="stable")[:gone])
            if gone:
                removals.append(Removal(number, group, units))
            else:
                made = producers(context.model, group) & matched
                _note(notes, made, f"all of {group.units} channels are kept")
        return removals, notes

    def _stays(self, group: Group, lacks: set[str], scores: np.ndarray | None) -> str:
        """Why nothing goes of a group, or ""."""
        if lacks:
            return f"tied to {', '.join(sorted(lacks))}, which the path does not match"
        if group.averaged and not self.averaged:
            return "a mean runs over these channels"
        if scores is None:
            nothing = {
                "bn_scale": "no BatchNorm scales these channels",
                "activation": "no linear layer or convolution reads these channels",
            }
            return nothing.get(self.criterion, "no parameters to score")
        return ""

    def _counts(self, scores: dict[int, np.ndarray], ratio: float) -> dict[int, int]:
        """How many units go of each group."""
        counts = {}
        wanted = _lowest_of_all(scores, ratio, self._floor) if self.scope == "global" else {}
        for number, line in scores.items():
            units = len(line)
            gone = wanted.get(number, 0) if self.scope == "global" else round(ratio * units)
            keep = max(units - gone, self._floor(units))
            counts[number] = units - min(units, self.round_to * -(-keep // self.round_to))
        return counts

    def _floor(self, units: int) -> int:
        """How many of a group stay whatever the ratio."""
        least = (LEAST if self.scope == "global" else 0) if self.least is None else self.least
        return max(1, int(np.ceil(least * units)))

    def _reach(self, context: Context, found: Dimensions, scores: Scores) -> Outcome:
        """The smallest ratio at which the target is met."""
        what, goal = goal_of(self, names=GOALS)
        refused: dict[int, str] = {}

        def build(ratio: float, *, check: bool) -> Outcome:
            chosen = self.choose(context, found, scores, ratio)
            return settle(context, found, *chosen, refused, check=check)

        def model_of(outcome: Outcome) -> nnx.Module:
            if what != "latency_ms":
                return outcome.small
            changes = [a for a in answers(context, found, outcome) if isinstance(a, Change)]
            return with_changes(context.model, changes)

        limit = "with as little left of every group as may be"
        if found.not_understood:
            limit += f" (not understood: {', '.join(found.not_understood)})"
        search = partial(
            reach,
            what,
            goal,
            start=context.model,
            example=context.example,
            model_of=model_of,
            who=self,
            limit=limit,
        )
        # A trace a candidate costs most of the time, and few models break: the last alone is
        # traced, and where that restores a group or anything fails, all are.
        try:
            if what == "macs":
                settled = self._by_estimate(search, context, found, scores, goal)
            else:
                best = search(build=partial(build, check=False))
                settled = settle(context, found, best.removals, best.notes, refused)
                settled = settled if len(settled.removals) == len(best.removals) else None
        except Exception:  # whatever somebody's code raises on sizes that it does not bear
            settled = None
        return search(build=partial(build, check=True)) if settled is None else settled

    def _by_estimate(
        self,
        search: Callable[..., Outcome],
        context: Context,
        found: Dimensions,
        scores: Scores,
        goal: float,
    ) -> Outcome | None:
        """The same by MACs added up over the walk of the whole model; None: they misled."""
        now = cost(context.model, context.example).macs
        scale = now / max(1, found.macs(_roots(found, ())))

        def build(ratio: float) -> Outcome:
            removals, notes = self.choose(context, found, scores, ratio)
            return Outcome(tuple(removals), {}, context.model, notes)

        def read(outcome: Outcome) -> float:
            return scale * found.macs(_roots(found, outcome.removals))

        best = search(build=build, read=read)
        settled = settle(context, found, best.removals, best.notes, {})
        after = cost(settled.small, context.example).macs
        whole = len(settled.removals) == len(best.removals)
        return settled if whole and after <= (goal * now if goal < 1 else goal) else None


def _lowest_of_all(
    scores: dict[int, np.ndarray], ratio: float, floor: Callable[[int], int]
) -> dict[int, int]:
    """How many of each group are among the lowest `ratio` of all, beyond none's floor."""
    entries = []
    for number, line in scores.items():
        ordered = np.sort(line / max(line.mean(), np.finfo(np.float64).tiny))
        entries += [(value, number) for value in ordered[: len(line) - floor(len(line))].tolist()]
    total = round(ratio * sum(map(len, scores.values())))
    return Counter(number for _, number in sorted(entries)[:total])


def _roots(found: Dimensions, removals: Iterable[Removal]) -> np.ndarray:
    """Of the channels that go."""
    gone = [np.zeros(0, np.int64)]
    for _, group, units in removals:
        axis, channels = next(iter(group.members.items()))
        gone.append(found.roots[axis][channels[units].ravel()])
    return np.concatenate(gone)


def _note(notes: Notes, paths: Iterable[str], why: str) -> None:
    for path in paths:
        notes.setdefault(path, []).append(why)
