# SPDX-License-Identifier: Apache-2.0
"""Which channels of which arrays of a model can only be removed together, found by tracing it.

The jaxpr of the reference lowering is walked with the entries of `compress/ties.py` at every axis
of every value. An addition ties its operands' channels, a product with a kernel ties the channels
it sums over and passes the others on, a concatenation strings them together, and so on. What is
left untied in the end is a *unit*: a channel of a residual stream, a hidden feature, a head. Units
that live on the same axes of the same arrays make a `Group`.

Reference: the dependency graph of Fang et al., *DepGraph: Towards Any Structural Pruning* (arXiv
2301.12900). Differs: the graph is over single channels and over the primitives of JAX, so
concatenations, splits and flattenings need no offsets, and no kind of layer has rules of its own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from efficient_layers.compress.dimension_rules import Rules
from efficient_layers.compress.ties import FIXED, FROZEN, Entry, Ties
from efficient_layers.measure.tensors import PASSING_TYPES
from efficient_layers.measure.view import pure
from efficient_layers.ops import lowering

Axis = tuple[str, int]  # path of a Variable, one of its axes


@dataclass(frozen=True)
class Group:
    """Units on the same axes: `members[path, axis]` (units, k) has a unit's indices in its row.

    `averaged`: a mean or another sum runs over these channels (layer normalisation): removing
    them changes it for the others, so that removing zeros is no longer the same as masking.
    """

    members: Mapping[Axis, np.ndarray]
    averaged: bool = False

    @property
    def units(self) -> int:
        return len(next(iter(self.members.values())))


@dataclass(frozen=True)
class Dimensions:
    """What a walk found.

    `roots[path, axis]`: a number for each index, equal where indices are tied, 0 where they stay.
    `inputs[path]`: the roots of the channels that a convolution with this kernel reads.
    `products`: a number and roots a dot or convolution; the number times the lengths is its MACs.
    `not_understood`: operations whose operands were frozen, "primitive in scope".
    `decisions`: the free choices that were made (`Ties.decide`).
    """

    groups: tuple[Group, ...]
    roots: Mapping[Axis, np.ndarray]
    inputs: Mapping[str, np.ndarray]
    products: tuple[tuple[int, tuple[np.ndarray, ...]], ...]
    not_understood: tuple[str, ...]
    decisions: tuple[int, ...] = ()

    def macs(self, gone: np.ndarray) -> int:
        """Of the whole example, without the channels of the roots in `gone`; to search with."""
        mask = np.ones(1 + max((int(r.max()) for r in self.roots.values()), default=0), bool)
        mask[gone] = False
        return sum(
            fixed * math.prod(int(mask[roots].sum()) for roots in free)
            for fixed, free in self.products
        )


def dimensions(model: nnx.Module, example: Any, decisions: Sequence[int] = ()) -> Dimensions:
    """Traces `model` in eval mode on `example` and finds its groups; neither is changed.

    Sizes of the input and of the output stay as they are. `decisions`: of the walk of the same
    model with other sizes.

    Raises:
      Whatever the model raises when it is called with `example`.
    """
    function = pure(model, example)
    with lowering("reference"):
        jaxpr = jax.make_jaxpr(function.apply)(function.state, function.arrays)
    ties = Ties(decisions)
    variables = _variables(function.state)
    entries: list[list[Entry]] = []
    axes: dict[Axis, np.ndarray] = {}
    for path, shape, passing in variables:
        entry: list[Entry] = [FIXED if passing else ties.new(size) for size in shape]
        entries.append(entry)
        axes |= {(path, axis): atoms for axis, atoms in enumerate(entry) if atoms is not FIXED}
    rules = Rules(ties)
    given = [[FIXED] * len(a.shape) for a in function.arrays]
    for result in rules.run(jaxpr, [*entries, *given]):
        for entry in result:
            ties.freeze(entry)
    roots = {axis: ties.roots(atoms) for axis, atoms in axes.items()}
    kernels = {
        path: ties.roots(atoms)
        for path, shape, _ in variables
        if len(shape) > 1
        and (atoms := rules.inputs.get(int(axes.get((path, len(shape) - 1), [FROZEN])[0])))
        is not None
    }
    products = tuple(_resolved(ties, times, axes) for times, axes in rules.products)
    averaged = {int(root) for atoms in rules.averaged for root in ties.roots(atoms)}
    groups = _groups(roots, averaged)
    unknown, decided = tuple(rules.not_understood), tuple(ties.decisions)
    return Dimensions(groups, roots, kernels, products, unknown, decided)


def _resolved(
    ties: Ties, times: int, axes: Sequence[tuple[int, Entry]]
) -> tuple[int, tuple[np.ndarray, ...]]:
    """A product's axes as roots, and the product of those that stay as they are."""
    lines = []
    for size, entry in axes:
        entry = ties.settled(entry)
        if isinstance(entry, np.ndarray):
            lines.append(ties.roots(entry))
        else:
            times *= size
    return times, tuple(lines)


def _variables(state: Any) -> list[tuple[str, tuple[int, ...], bool]]:
    """(path, shape, whether its axes are fixed) in the order of `jax.tree.leaves(state)`."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        state, is_leaf=lambda node: isinstance(node, nnx.Variable)
    )
    variables = []
    for path, node in found:
        name = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        plain = type(node).__name__ != "QuantParam" and not isinstance(node, PASSING_TYPES)
        for leaf in jax.tree.leaves(node):
            plain = plain and not jax.numpy.issubdtype(leaf.dtype, jax.dtypes.extended)
            variables.append((name, tuple(leaf.shape), not plain))
    return variables


def _groups(roots: Mapping[Axis, np.ndarray], averaged: set[int]) -> tuple[Group, ...]:
    """Units by the axes they live on, in the order of their first channel."""
    units: dict[int, dict[Axis, np.ndarray]] = {}
    for axis, line in roots.items():
        order = np.argsort(line, kind="stable")
        values, starts = np.unique(line[order], return_index=True)
        for root, indices in zip(values.tolist(), np.split(order, starts[1:]), strict=True):
            if root != FROZEN:
                units.setdefault(root, {})[axis] = indices
    kinds: dict[Any, list[dict[Axis, np.ndarray]]] = {}
    for root, members in units.items():
        kind = frozenset((axis, len(indices)) for axis, indices in members.items())
        kinds.setdefault((kind, root in averaged), []).append(members)
    groups = []
    for (_, mean), alike in kinds.items():
        # One unit cannot lose itself; an axis of one array alone leads nowhere.
        if len(alike) > 1 and len(alike[0]) > 1:
            stacked = {axis: np.stack([unit[axis] for unit in alike]) for axis in alike[0]}
            groups.append(Group(stacked, mean))
    return tuple(groups)
