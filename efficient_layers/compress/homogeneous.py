# SPDX-License-Identifier: Apache-2.0
"""Which primitives of JAX are positively homogeneous in each channel: f(s x) = s f(x), s > 0.

Sums over other axes, maxima, products with anything that does not depend on x, ReLUs. A bias, a
sigmoid or a sum with another layer's output is not: there the flow of a layer's output ends.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Flow(NamedTuple):
    """Where a layer's channels are in a value: feature i of `axis` is its channel `channels[i]`.

    `between`: the primitives on the way from the layer.
    """

    axis: int
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


def _reshape(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    """The channels stay an axis, or the last axes become one."""
    (flow, *_), old, new = flows, eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if eqn.params.get("dimensions") is not None:
        return None
    before, size = int(np.prod(old[: flow.axis])), old[flow.axis]
    for axis in range(len(new)):  # the same number of rows before it
        if new[axis] == size and int(np.prod(new[:axis])) == before:
            return [flow._replace(axis=axis)]
    if flow.axis == len(old) - 1 and new and new[-1] % size == 0:
        return [flow._replace(axis=len(new) - 1, channels=np.tile(flow.channels, new[-1] // size))]
    return None


def _squeeze(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    (flow,), gone = flows, eqn.params["dimensions"]
    kept = flow.axis not in gone
    return [flow._replace(axis=flow.axis - sum(d < flow.axis for d in gone))] if kept else None


def _broadcast(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    flow, places = flows[0], eqn.params["broadcast_dimensions"]
    axis = places[flow.axis]
    repeats = eqn.params["shape"][axis] // len(flow.channels)
    return [flow._replace(axis=axis, channels=np.repeat(flow.channels, repeats))]


def _transpose(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    return [flows[0]._replace(axis=eqn.params["permutation"].index(flows[0].axis))]


def _slice(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    (flow,), p = flows, eqn.params
    step = None if p["strides"] is None else p["strides"][flow.axis]
    part = slice(p["start_indices"][flow.axis], p["limit_indices"][flow.axis], step)
    return [flow._replace(channels=flow.channels[part])]


def _dynamic_slice(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    flow = flows[0]
    whole = flow is not None and not any(flows[1:])
    return [flow] if whole and _unchanged(eqn, flow.axis) else None


def _split(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    (flow,), p = flows, eqn.params
    if p["axis"] != flow.axis:
        return [flow] * len(eqn.outvars)
    ends = np.cumsum(p["sizes"])[:-1]
    return [flow._replace(channels=part) for part in np.split(flow.channels, ends)]


def _pad(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    whole = zeros[1] and flows[0] is not None and _unchanged(eqn, flows[0].axis)
    return [flows[0]] if whole else None


def _concatenate(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    alike = _alike(eqn, flows, zeros)
    return alike if alike and eqn.params["dimension"] != alike[0].axis else None


def _reduce(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    (flow,), gone = flows, eqn.params["axes"]
    kept = flow.axis not in gone
    return [flow._replace(axis=flow.axis - sum(a < flow.axis for a in gone))] if kept else None


def _window(eqn: Any, flows: Any, zeros: Any) -> Flows | None:
    return [flows[0]] if eqn.params["window_dimensions"][flows[0].axis] == 1 else None


def _same(a: Flow, b: Flow) -> bool:
    return a.axis == b.axis and np.array_equal(a.channels, b.channels)


def _unchanged(eqn: Any, axis: int) -> bool:
    return eqn.invars[0].aval.shape[axis] == eqn.outvars[0].aval.shape[axis]


_KINDS: dict[Callable[..., Flows | None], str] = {
    _each: "abs convert_element_type copy copy_p name neg optimization_barrier reduce_precision "
    "sharding_constraint stop_gradient",
    _alike: "add add_any max min sub",
    _product: "mul",
    _quotient: "div",
    _chosen: "select_n",
    _sign: "eq ge gt le lt ne sign",
    _reshape: "reshape",
    _squeeze: "squeeze",
    _broadcast: "broadcast_in_dim",
    _transpose: "transpose",
    _slice: "slice",
    _dynamic_slice: "dynamic_slice",
    _split: "split",
    _pad: "pad",
    _concatenate: "concatenate",
    _reduce: "reduce_max reduce_min reduce_sum",
    _window: "reduce_window_max reduce_window_min reduce_window_sum",
}
_RULES = {name: rule for rule, names in _KINDS.items() for name in names.split()}
