# SPDX-License-Identifier: Apache-2.0
"""Which primitives of JAX are positively homogeneous in each channel: f(s x) = s f(x), s > 0.

Sums over other axes, maxima, products with anything that does not depend on x, ReLUs. A bias, a
sigmoid or a sum with another layer's output is not: there the flow of a layer's output ends.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Flow(NamedTuple):
    """Where a layer's channels are in a value: its element i is of channel `channels[i of axes]`.

    `axes` ascend; along the others the channel does not change. -1 stands where something else is
    that does not depend on the layer. `between`: the primitives on the way from the layer.
    """

    axes: tuple[int, ...]
    channels: np.ndarray
    between: tuple[str, ...] = ()


Flows = list[Flow | None]


def passed(eqn: Any, flows: Sequence[Flow | None], zeros: Sequence[bool]) -> Flows | str:
    """The flow of one layer in each output of `eqn` (None: no part of it), or why it ends here.

    `flows`: of that layer, in each operand; `zeros`: which operands are the number 0.
    """
    name = eqn.primitive.name
    rule = _RULES.get(name)
    outs = None if rule is None else rule(eqn, flows, zeros)
    if outs is None:
        return _WHY.get(name, f"it goes into {name}")
    return [flow and flow._replace(between=(*flow.between, name)) for flow in outs]


_WHY = {
    "add": "it is added to something else",
    "add_any": "it is added to something else",
    "sub": "it is added to something else",
    "concatenate": "it is joined with something else",
    "min": "it goes into min: a clip such as ReLU6 is not scale-free",
    "clamp": "it goes into clamp: a clip such as ReLU6 is not scale-free",
}


def _each(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    """As many outputs as operands, elementwise."""
    kept = all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.outvars)
    return list(flows) if kept else None


def _alike(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    """One output; every operand is of this layer alike, or 0."""
    found = [flow for flow in flows if flow is not None]
    whole = all(flow or zero for flow, zero in zip(flows, zeros, strict=True))
    return [found[0]] if whole and all(_same(found[0], flow) for flow in found) else None


def _product(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    found = [flow for flow in flows if flow is not None]
    return found if len(found) == 1 else None


def _quotient(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    return [flows[0]] if flows[1] is None else None


def _chosen(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    return _alike(eqn, flows[1:], zeros[1:]) if flows[0] is None else None


def _sign(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    """x > 0 does not change with the scale of x."""
    compared = [flow or zero for flow, zero in zip(flows, zeros, strict=True)]
    return [None] if all(compared) and (len(flows) == 1 or any(zeros)) else None


def _dot(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    """A product with something else that does not sum over channels: values by their weights."""
    contracted, batch = eqn.params["dimension_numbers"]
    if all(flows):
        return None
    side = 0 if flows[0] else 1
    if set(flows[side].axes) & set(contracted[side]):
        return None
    free = [
        [axis for axis in range(v.aval.ndim) if axis not in (*contracted[i], *batch[i])]
        for i, v in enumerate(eqn.invars)
    ]
    shift = len(batch[0]) + side * len(free[0])
    places = {axis: place for place, axis in enumerate(batch[side])}
    places |= {axis: shift + place for place, axis in enumerate(free[side])}
    return [_placed(flows[side], places)]


def _reshape(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    """Axes split or joined: heads and their features, pixels and their channels."""
    (flow, *_), old, new = flows, eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if eqn.params.get("dimensions") is not None or 0 in old:
        return None
    places: dict[int, int] = {}  # axes of the outcome, by a number that is free
    for before, after in _blocks(old, new):
        inside = [axis for axis in flow.axes if axis in before]
        if not inside:
            continue
        rest = [axis for axis in flow.axes if axis not in before]
        order = [flow.axes.index(axis) for axis in (*inside, *rest)]
        outer = tuple(flow.channels.shape[flow.axes.index(axis)] for axis in rest)
        sizes = [old[axis] for axis in before]
        thin = [old[axis] if axis in inside else 1 for axis in before]
        labels = flow.channels.transpose(order).reshape(*thin, *outer)
        labels = np.broadcast_to(labels, (*sizes, *outer))
        labels = labels.reshape(*(new[axis] for axis in after), *outer)
        varies = [bool((labels != labels.take([0], i)).any()) for i in range(len(after))]
        for i in reversed(range(len(after))):
            labels = labels if varies[i] else labels.take(0, i)
        made = [len(old) + axis for axis, kept in zip(after, varies, strict=True) if kept]
        flow = Flow((*made, *rest), labels, flow.between)
        places |= {axis: axis - len(old) for axis in made}
    return [_placed(flow, places)]


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> Iterator[tuple[range, range]]:
    """Runs of axes of both shapes that hold the same numbers, as short as can be."""
    i = j = 0
    while i < len(old) or j < len(new):
        start, begin, a, b = i, j, 1, 1
        while a != b or (i, j) == (start, begin):
            if j == len(new) or (i < len(old) and a <= b):
                a, i = a * old[i], i + 1
            else:
                b, j = b * new[j], j + 1
        yield range(start, i), range(begin, j)


def _squeeze(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    return [_without(flows[0], eqn.params["dimensions"])]


def _broadcast(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    flow, old = flows[0], eqn.invars[0].aval.shape
    index = tuple(0 if old[axis] == 1 else slice(None) for axis in flow.axes)
    kept = tuple(axis for axis in flow.axes if old[axis] != 1)
    flow = flow._replace(axes=kept, channels=flow.channels[index])
    return [_placed(flow, dict(enumerate(eqn.params["broadcast_dimensions"])))]


def _transpose(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    order = eqn.params["permutation"]
    return [_placed(flows[0], {axis: place for place, axis in enumerate(order)})]


def _slice(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    (flow,), p = flows, eqn.params
    steps = p["strides"] or (1,) * len(p["start_indices"])
    parts = tuple(
        slice(p["start_indices"][axis], p["limit_indices"][axis], steps[axis]) for axis in flow.axes
    )
    return [flow._replace(channels=flow.channels[parts])]


def _dynamic_slice(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    whole = flows[0] is not None and not any(flows[1:])
    return [flows[0]] if whole and _unchanged(eqn, flows[0]) else None


def _split(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    (flow,), p = flows, eqn.params
    if p["axis"] not in flow.axes:
        return [flow] * len(eqn.outvars)
    parts = np.split(flow.channels, np.cumsum(p["sizes"])[:-1], flow.axes.index(p["axis"]))
    return [flow._replace(channels=part) for part in parts]


def _rev(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    (flow,) = flows
    turned = tuple(i for i, axis in enumerate(flow.axes) if axis in eqn.params["dimensions"])
    return [flow._replace(channels=np.flip(flow.channels, turned))]


def _pad(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    """Zeros at any axis; anything along the channels."""
    flow, edges = flows[0], eqn.params["padding_config"]
    if flow is None or any(low < 0 or high < 0 or inner for low, high, inner in edges):
        return None
    if not zeros[1] and any(any(edge) for axis, edge in enumerate(edges) if axis not in flow.axes):
        return None
    widths = [edges[axis][:2] for axis in flow.axes]
    return [flow._replace(channels=np.pad(flow.channels, widths, constant_values=-1))]


def _concatenate(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    """Alike along another axis; with anything along the channels."""
    first: Flow = next(flow for flow in flows if flow is not None)
    along = eqn.params["dimension"]
    if along not in first.axes:
        return _alike(eqn, flows, zeros)
    if any(flow is not None and flow.axes != first.axes for flow in flows):
        return None
    parts = []
    for flow, operand in zip(flows, eqn.invars, strict=True):
        sizes = [operand.aval.shape[axis] for axis in first.axes]
        parts.append(np.full(sizes, -1) if flow is None else flow.channels)
    return [first._replace(channels=np.concatenate(parts, first.axes.index(along)))]


def _reduce(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    (flow,), gone = flows, eqn.params["axes"]
    return None if set(flow.axes) & set(gone) else [_without(flow, gone)]


def _window(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    sizes = eqn.params["window_dimensions"]
    return [flows[0]] if all(sizes[axis] == 1 for axis in flows[0].axes) else None


def _placed(flow: Flow, places: dict[int, int]) -> Flow:
    """The flow with its axes at other places."""
    axes = [places[axis] for axis in flow.axes]
    order = np.argsort(axes)
    return flow._replace(
        axes=tuple(axes[i] for i in order), channels=flow.channels.transpose(order)
    )


def _without(flow: Flow, gone: Sequence[int]) -> Flow:
    """The flow where axes are gone; of its own, such as had one index."""
    kept = [axis for axis in flow.axes if axis not in gone]
    index = tuple(0 if axis in gone else slice(None) for axis in flow.axes)
    places = {axis: axis - sum(g < axis for g in gone) for axis in kept}
    return _placed(flow._replace(axes=tuple(kept), channels=flow.channels[index]), places)


def _same(a: Flow, b: Flow) -> bool:
    return a.axes == b.axes and np.array_equal(a.channels, b.channels)


def _unchanged(eqn: Any, flow: Flow) -> bool:
    shapes = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    return all(shapes[0][axis] == shapes[1][axis] for axis in flow.axes)


_KINDS: dict[Callable[..., Flows | None], str] = {
    _each: "abs convert_element_type copy copy_p name neg optimization_barrier reduce_precision "
    "sharding_constraint stop_gradient",
    _alike: "add add_any max min sub",
    _product: "mul",
    _quotient: "div",
    _chosen: "select_n",
    _sign: "eq ge gt le lt ne sign",
    _dot: "dot_general",
    _reshape: "reshape",
    _squeeze: "squeeze",
    _broadcast: "broadcast_in_dim",
    _transpose: "transpose",
    _slice: "slice",
    _dynamic_slice: "dynamic_slice",
    _split: "split",
    _rev: "rev",
    _pad: "pad",
    _concatenate: "concatenate",
    _reduce: "reduce_max reduce_min reduce_sum",
    _window: "reduce_window_max reduce_window_min reduce_window_sum",
}
_RULES = {name: rule for rule, names in _KINDS.items() for name in names.split()}
