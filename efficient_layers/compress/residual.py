# SPDX-License-Identifier: Apache-2.0
"""Which modules of a model are residual blocks, whose output is their input and something more.

Found by tracing: the input and the output of each module get its name (`checkpoint_name`), and the
jaxpr is walked between the two. A block adds (anywhere) a value that comes of its input by
elementwise operations to one that comes of it through a product with weights, and its output comes
of that sum without a further product: x + f(x), relu(x + f(x)), norm(x + f(x)) are blocks; f(x),
norm(x) and x * gate(x) are none.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Flag
from typing import Any

import jax
import jax.extend.core as jex
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from efficient_layers.compress.dimension_rules import ELEMENTWISE
from efficient_layers.compress.hooks import Hook, hooked
from efficient_layers.compress.shape_rules import SHAPES
from efficient_layers.measure.jaxpr import called, opened
from efficient_layers.measure.view import pure
from efficient_layers.ops import lowering


class Way(Flag):
    """How a value comes of a block's input."""

    NONE = 0
    NEAR = 1  # by elementwise operations, reshapes and sums over axes
    DEEP = 2  # through a product
    JOINED = 4  # as NEAR, of a sum of the two


Ways = Mapping[str, Way]  # by the path of the block

_IN, _OUT = "el.compress.block in:", "el.compress.block out:"
_LOOPS = ("scan", "while", "cond")
_SUMS = ("add", "add_any", "sub")


def residual_blocks(
    model: nnx.Module, paths: Sequence[str], example: Any
) -> tuple[list[str], dict[str, str]]:
    """Those of `paths` that an `Identity` can stand for, in the order of their calls; why not, of
    the others.

    Raises:
      Whatever the model raises when it is called with `example`.
    """
    reasons: dict[str, str] = {}
    calls: dict[str, int] = {}

    def watching(path: str) -> Hook:
        def hook(call: Callable, *args: Any, **kwargs: Any) -> Any:
            calls[path] = calls.get(path, 0) + 1
            x = args[0] if args else kwargs.get("x")
            if not hasattr(x, "dtype"):
                reasons[path] = "it is not called with an array first (or as x)"
                return call(*args, **kwargs)
            x = checkpoint_name(x, _IN + path)
            args, kwargs = ((x, *args[1:]), kwargs) if args else ((), kwargs | {"x": x})
            y = call(*args, **kwargs)
            if reason := _misfit(x, y):
                reasons[path] = reason
                return y
            return checkpoint_name(y, _OUT + path)

        return hook

    function = pure(hooked(model, {path: watching(path) for path in paths}), example)
    with lowering("reference"):
        traced = jax.make_jaxpr(function.apply)(function.state, function.arrays)
    walk = _Walk()
    walk.run(traced, [{}] * len(opened(traced).invars))
    for path in paths:
        if path not in calls:
            reasons.setdefault(path, "it is not called")
        elif calls[path] > 1:
            reasons.setdefault(path, f"it is called {calls[path]} times: its weights are shared")
        elif path not in walk.joined:
            reasons.setdefault(path, "it runs in a loop or a branch")
        elif not walk.joined[path]:
            reasons.setdefault(path, "its output is not its input and something more")
    free: list[str] = []
    for path in calls:
        outer = next((p for p in calls if path.startswith(f"{p}/") and p not in reasons), None)
        if outer is not None:
            reasons.setdefault(path, f"inside {outer}, which can go whole")
        if path not in reasons:
            free.append(path)
    return free, reasons


def _misfit(x: Any, y: Any) -> str:
    """Why `x` cannot stand for `y`, or ""."""
    if not hasattr(y, "dtype"):
        return f"it returns a {type(y).__name__}, where an Identity returns an array"
    if x.shape != y.shape:
        return f"it changes the shape, {x.shape} to {y.shape}"
    return f"it changes the type, {x.dtype} to {y.dtype}" if x.dtype != y.dtype else ""


class _Walk:
    """`run(jaxpr, ways)` fills `joined`: of every block with both its names, outside of loops."""

    def __init__(self) -> None:
        self.joined: dict[str, bool] = {}

    def run(self, jaxpr: Any, ways: Sequence[Ways]) -> list[Ways]:
        jaxpr = opened(jaxpr)
        known: dict[Any, Ways] = dict(zip(jaxpr.invars, ways, strict=True))

        def of(atom: Any) -> Ways:
            return {} if isinstance(atom, jex.Literal) else known.get(atom, {})

        for eqn in jaxpr.eqns:
            results = self._equation(eqn, [of(atom) for atom in eqn.invars])
            known |= zip(eqn.outvars, results, strict=True)
        return [of(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, ways: list[Ways]) -> list[Ways]:
        name = eqn.primitive.name
        label = str(eqn.params.get("name", "")) if name == "name" else ""
        if label.startswith(_IN):
            return [{**ways[0], label.removeprefix(_IN): Way.NEAR}]
        if label.startswith(_OUT):
            path = label.removeprefix(_OUT)
            self.joined[path] = Way.JOINED in ways[0].get(path, Way.NONE)
            return [{p: way for p, way in ways[0].items() if p != path}]
        inner = called(eqn) if name not in _LOOPS else None
        if inner is not None:
            return self.run(inner, ways)
        paths = dict.fromkeys(path for way in ways for path in way)
        result = {p: _after(name, [way.get(p, Way.NONE) for way in ways]) for p in paths}
        return [result] * len(eqn.outvars)


def _after(name: str, ways: list[Way]) -> Way:
    """Of the result of an operation, from those of its operands."""
    near = name in ELEMENTWISE or name in SHAPES or name.startswith("reduce") or name == "name"
    if not near:
        return Way.DEEP
    found = Way.NONE
    for way in ways:
        found |= way
    if name in _SUMS and len(ways) == 2:
        for one, other in (ways, ways[::-1]):
            if one & (Way.NEAR | Way.JOINED) and Way.DEEP in other:
                found |= Way.JOINED
    return found
