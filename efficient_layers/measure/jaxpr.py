# SPDX-License-Identifier: Apache-2.0
"""Walks a jaxpr: which dots and convolutions run, how often, and which inputs' values reach them.

Every value has a *flow*: from where it comes. A dot or convolution is credited to the weights that
arrive at it through anything but another product with data: casts, reshapes, padding, slices of a
stack inside a scan, weight standardisation, fake quantisation, a low-rank product of two weights.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import prod
from typing import Any, NamedTuple

import jax.extend.core as jex

from efficient_layers.measure.macs import conv_macs, dot_macs, ragged_macs


class Level(IntEnum):
    """What a value depends on. SELECTED: a weight picked by data (an embedding row, an expert)."""

    CONSTANT = 0
    WEIGHT = 1
    SELECTED = 2
    DATA = 3


class Flow(NamedTuple):
    """A value's level and, unless it is data, the indices of the inputs whose values are in it."""

    level: Level
    origins: frozenset[int] = frozenset()


CONSTANT = Flow(Level.CONSTANT)
DATA = Flow(Level.DATA)


def weight(index: int) -> Flow:
    """The flow of input number `index`, a weight."""
    return Flow(Level.WEIGHT, frozenset([index]))


@dataclass(frozen=True)
class Operation:
    """A dot or convolution, times the number of its runs. `origins`: inputs it is credited to."""

    kind: str
    macs: int
    activations: int
    shape: tuple[int, ...]
    origins: frozenset[int]
    scope: str
    note: str = ""


@dataclass(frozen=True)
class Site:
    """Where the walker stands: the enclosing named scopes, how often it runs, what is doubtful."""

    scope: str = ""
    times: int = 1
    note: str = ""

    def inside(self, scope: str, times: int = 1, note: str = "") -> "Site":
        notes = "; ".join(dict.fromkeys(n for n in (self.note, note) if n))
        return Site("/".join(s for s in (self.scope, scope) if s), self.times * times, notes)


_HERE = Site()

# Primitives whose first operand is picked from by the others; (select_n: the cases by the first).
_PICKED = {"gather": slice(0, 1), "dynamic_slice": slice(0, 1), "select_n": slice(1, None)}
_COUNTED = ("dot_general", "ragged_dot_general", "conv_general_dilated")


@dataclass
class Walker:
    """`run(jaxpr, flows)` fills `events`, in program order.

    An event is an operation, or the index of an input that some equation brings to the data.
    """

    events: list[Operation | int] = field(default_factory=list)

    @property
    def operations(self) -> list[Operation]:
        """The dots and convolutions alone."""
        return [event for event in self.events if isinstance(event, Operation)]

    def run(self, jaxpr: Any, flows: Sequence[Flow], site: Site = _HERE) -> list[Flow]:
        """The flows of `jaxpr`'s results, given those of its arguments."""
        jaxpr = opened(jaxpr)
        known: dict[Any, Flow] = dict(zip(jaxpr.invars, flows, strict=True))

        def flow(atom: Any) -> Flow:
            return CONSTANT if isinstance(atom, jex.Literal) else known.get(atom, CONSTANT)

        for eqn in jaxpr.eqns:
            results = self._equation(eqn, [flow(atom) for atom in eqn.invars], site)
            known.update(zip(eqn.outvars, results, strict=True))
        return [flow(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, flows: list[Flow], site: Site) -> list[Flow]:
        name, scope = eqn.primitive.name, _scope(eqn)
        if name in _COUNTED:
            return [self._count(eqn, flows, site.inside(scope))]
        if name == "scan":
            return self._scan(eqn, flows, site.inside(scope, eqn.params["length"]))
        if name == "while":
            return self._while(eqn, flows, site.inside(scope, 1, "in a while loop: counted once"))
        if name == "cond":
            return self._cond(eqn, flows, site.inside(scope))
        inner = called(eqn)
        if inner is not None:
            return self.run(inner, flows, site.inside(scope))
        self._uncounted(eqn, site.inside(scope))
        result = _picked(flows, _PICKED[name]) if name in _PICKED else _joined(flows)
        self._meet(flows, result)
        return [result] * len(eqn.outvars)

    def _count(self, eqn: Any, flows: list[Flow], site: Site) -> Flow:
        """Records a dot or convolution. A product of weights alone is a weight, no activation."""
        result = _joined(flows[:2])
        if result.level > Level.WEIGHT:
            result = DATA
        self._meet(flows, result)
        origins = _credited(flows[:2])
        shape = tuple(eqn.outvars[0].aval.shape)
        self.events.append(
            Operation(
                kind=_kind(eqn, bool(origins)),
                macs=_macs(eqn) * site.times,
                activations=prod(shape) * site.times if result is DATA else 0,
                shape=shape,
                origins=origins,
                scope=site.scope,
                note=site.note,
            )
        )
        return result

    def _scan(self, eqn: Any, flows: list[Flow], site: Site) -> list[Flow]:
        consts, carries = scan_parts(eqn)
        xs = flows[consts + carries :]
        carry = flows[consts : consts + carries]
        return self._loop(eqn.params["jaxpr"], flows[:consts], carry, xs, site)

    def _while(self, eqn: Any, flows: list[Flow], site: Site) -> list[Flow]:
        first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        cond, body, carry = flows[:first], flows[first : first + second], flows[first + second :]
        carry = self._loop(eqn.params["body_jaxpr"], body, carry, [], site)
        self.run(eqn.params["cond_jaxpr"], [*cond, *carry], site)
        return carry

    def _loop(
        self, jaxpr: Any, consts: list[Flow], carry: list[Flow], xs: list[Flow], site: Site
    ) -> list[Flow]:
        """The body's results, after the carry's flow has settled (a zero state becomes data)."""
        while True:
            results = Walker().run(jaxpr, [*consts, *carry, *xs], site)
            settled = [_joined(pair) for pair in zip(carry, results, strict=False)]
            if settled == carry:
                return self.run(jaxpr, [*consts, *carry, *xs], site)
            carry = settled

    def _cond(self, eqn: Any, flows: list[Flow], site: Site) -> list[Flow]:
        """Counts the branch with the most MACs; its result may come from any branch."""
        walks, results = [], []
        for branch in eqn.params["branches"]:
            walks.append(Walker())
            results.append(walks[-1].run(branch, flows[1:], site))
        largest = max(walks, key=lambda walk: sum(op.macs for op in walk.operations))
        note = f"largest of {len(walks)} branches"
        for walk in walks:
            self.events += [event for event in walk.events if not isinstance(event, Operation)]
        for op in largest.operations:
            notes = "; ".join(n for n in (op.note, note) if n)
            self.events.append(replace(op, note=notes))
        return [_picked([flows[0], *cases], slice(1, None)) for cases in zip(*results, strict=True)]

    def _uncounted(self, eqn: Any, site: Site) -> None:
        """Leaves a zero and a note for an operation whose own program cannot be read here."""
        name = eqn.primitive.name
        hidden = any(_counts(jaxpr) for jaxpr in _programs(eqn))
        if hidden or name == "pallas_call":
            note = f"{name}: its work is not counted"
            self.events.append(
                Operation(name, 0, 0, (), frozenset(), site.scope, site.inside("", 1, note).note)
            )

    def _meet(self, flows: Iterable[Flow], result: Flow) -> None:
        """Notes which inputs an equation brings to the data."""
        if result.level > Level.WEIGHT:
            for flow in flows:
                self.events += sorted(flow.origins)


def _scope(eqn: Any) -> str:
    """The named scopes around an equation, without those that einsum makes of its formula."""
    names = str(eqn.source_info.name_stack).split("/")
    return "/".join(name for name in names if "->" not in name)


def _joined(flows: Iterable[Flow]) -> Flow:
    flows = list(flows)
    level = max((flow.level for flow in flows), default=Level.CONSTANT)
    if level == Level.DATA:
        return DATA
    return Flow(level, frozenset().union(*(flow.origins for flow in flows)))


def _picked(flows: list[Flow], cases: slice) -> Flow:
    """The flow of what is picked among `flows[cases]` by the rest (indices, a predicate)."""
    source, by = _joined(flows[cases]), _joined(flows)
    if source.level in (Level.WEIGHT, Level.SELECTED) and by.level == Level.DATA:
        return Flow(Level.SELECTED, source.origins)
    return by


def _credited(flows: Sequence[Flow]) -> frozenset[int]:
    """Origins of the operand(s) nearest to being a weight: a kernel before an embedded token."""
    weights = [flow for flow in flows if flow.level in (Level.WEIGHT, Level.SELECTED)]
    nearest = min((flow.level for flow in weights), default=None)
    chosen = [flow.origins for flow in weights if flow.level == nearest]
    return frozenset().union(*chosen)


def _kind(eqn: Any, weighted: bool) -> str:
    if eqn.primitive.name != "conv_general_dilated":
        return "linear" if weighted else "matmul"
    groups = eqn.params["feature_group_count"]
    features = eqn.invars[0].aval.shape[eqn.params["dimension_numbers"].lhs_spec[1]]
    if groups == 1:
        return "conv"
    return "depthwise conv" if groups == features else "grouped conv"


def _macs(eqn: Any) -> int:
    lhs, rhs = (atom.aval.shape for atom in eqn.invars[:2])
    if eqn.primitive.name == "dot_general":
        return dot_macs(lhs, rhs, eqn.params["dimension_numbers"])
    if eqn.primitive.name == "ragged_dot_general":
        return ragged_macs(lhs, rhs, eqn.params["ragged_dot_dimension_numbers"])
    return conv_macs(lhs, rhs, eqn.outvars[0].aval.shape, eqn.params)


def opened(jaxpr: Any) -> Any:
    """A jaxpr without its constants' values; JAX 0.12 has one class for both."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def _programs(eqn: Any) -> list[Any]:
    """The jaxprs among an equation's parameters."""
    values = [v for p in eqn.params.values() for v in (p if isinstance(p, tuple) else (p,))]
    return [opened(v) for v in values if isinstance(v, jex.Jaxpr | jex.ClosedJaxpr)]


def called(eqn: Any) -> Any | None:
    """The program that `eqn` calls on its own operands: jit, remat, custom_vjp, custom_jvp, ..."""
    for jaxpr in _programs(eqn):
        if (len(jaxpr.invars), len(jaxpr.outvars)) == (len(eqn.invars), len(eqn.outvars)):
            return jaxpr
    return None


def _counts(jaxpr: Any) -> bool:
    return any(
        eqn.primitive.name in _COUNTED or any(_counts(inner) for inner in _programs(eqn))
        for eqn in jaxpr.eqns
    )


def scan_parts(eqn: Any) -> tuple[int, int]:
    """Number of constants and of carried values among a scan's operands."""
    if "num_carry" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    # JAX 0.12: a flat tree of (constants, carry, inputs).
    parts = eqn.params["ft_in"].update(list(range(len(eqn.invars)))).unpack()
    consts, carry, _ = (len(list(part)) for part in parts)
    return consts, carry
