# SPDX-License-Identifier: Apache-2.0
"""Which layer's output is which layer's input, and what stands between: found by tracing.

Convolutions, linear layers and normalisations are called through hooks that name their inputs and
outputs, and the jaxpr is walked once. Every value carries *flows*: the layers of whose output it is
a function that is positively homogeneous in each channel (`compress/homogeneous.py`), f(s x) =
s f(x) for s > 0 a channel. Whatever else an output goes into ends its flow, and is the reason why
that layer cannot be rescaled.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from efficient_layers import layers
from efficient_layers.compress.homogeneous import Flow, passed
from efficient_layers.compress.hooks import Hook, hooked
from efficient_layers.measure.jaxpr import called, opened, scan_parts
from efficient_layers.measure.view import pure
from efficient_layers.models.paths import modules
from efficient_layers.ops import lowering

# A subclass may do more with its kernel than multiply by it (StandardizedConv): these types alone.
LAYERS = (nnx.Conv, layers.Conv, layers.DepthwiseConv, nnx.Linear)
_NORMS = (nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm, nnx.GroupNorm)


class Way(NamedTuple):
    """From one layer's output into the input of `consumer`.

    `between`: the primitives on it. `channels[i]`: the layer's channel in the consumer's feature i,
    -1 where there is none (a concatenation with something else).
    """

    consumer: str
    between: tuple[str, ...]
    channels: np.ndarray

    def at(self, values: np.ndarray, missing: Any) -> np.ndarray:
        """The layer's (..., channels) at the consumer's (..., features)."""
        return np.where(self.channels < 0, missing, values[..., self.channels])


@dataclasses.dataclass
class Output:
    """Where one layer's output goes: `ways` into others, and why not only there ("": only there).

    `free`: its channels that go nowhere else. Where there is one, this layer and all that it feeds
    are called once, and their weights are used by nothing but these calls.
    """

    free: np.ndarray
    ways: list[Way] = dataclasses.field(default_factory=list)
    elsewhere: str = ""


def feeders(model: nnx.Module, example: Any) -> dict[str, Output]:
    """Path of each convolution, linear layer and normalisation that is called -> its output.

    Nothing is computed: `model`, in eval mode, is traced on `example`. A way leads to any of these
    layers, and to a `nnx.LinearGeneral`. A layer inside a scan is seen where all that it feeds is.
    """
    hooks: dict[str, Hook] = {}
    for path, module in modules(model):
        if type(module) in (*LAYERS, nnx.LinearGeneral) or isinstance(module, _NORMS):
            hooks[path] = _named(path)
    function = pure(hooked(model, hooks), example)
    with lowering("reference"):
        traced = jax.make_jaxpr(function.apply)(function.state, function.arrays)
    walk = _Walk()
    owners = [_Value(owner=owner) for owner in _owners(function.state)]
    arrays = _blank(len(traced.jaxpr.invars) - len(owners))
    for value in walk.run(traced.jaxpr, [*owners, *arrays]):
        walk.end(value.flows, "it is an output of the model")
    return walk.outputs()


_IN, _OUT, _AXES = "el.compress.in:", "el.compress.out:", "|"


def _named(path: str) -> Hook:
    def hook(call: Any, *args: Any, **kwargs: Any) -> Any:
        if args:
            args = (checkpoint_name(args[0], f"{_IN}{path}"), *args[1:])
        else:
            first = next(iter(kwargs))
            kwargs = kwargs | {first: checkpoint_name(kwargs[first], f"{_IN}{path}")}
        y = call(*args, **kwargs)
        return checkpoint_name(y, f"{_OUT}{path}{_AXES}{np.ndim(jax.tree.leaves(y)[0])}")

    return hook


def _owners(state: Any) -> Iterator[str]:
    """The path of the module of each leaf of `state`."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        state, is_leaf=lambda node: isinstance(node, nnx.Variable)
    )
    for path, node in found:
        keys = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        yield from ["/".join(keys[:-1])] * len(jax.tree.leaves(node))


@dataclasses.dataclass(frozen=True)
class _Value:
    """Flows by layer; the module whose Variable it is; whether it is the number 0."""

    flows: dict[str, Flow] = dataclasses.field(default_factory=dict)
    owner: str | None = None
    zero: bool = False


# What calls one program on its own operands, once. A scan has as many operands as its body, too.
_CALLS = {
    "jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2",
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
}  # fmt: skip
_COPIES = {"copy", "copy_p"}
_SAME_NUMBER = {"broadcast_in_dim", "convert_element_type"}


class _Walk:
    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._returned: Counter[str] = Counter()
        self._open: list[str] = []  # layers inside of whose call the walk stands: in order of trace
        self._inside: list[str] = []  # names of functions that are called
        self._foreign: set[str] = set()
        self._found: dict[str, Output] = {}

    def outputs(self) -> dict[str, Output]:
        for path, output in self._found.items():
            reason = self._alone(path)
            for way in output.ways:
                if not reason and (other := self._alone(way.consumer)):
                    reason = f"{way.consumer}: {other}"
            if reason:
                output.elsewhere = reason
                output.free[:] = False
        return self._found

    def _alone(self, path: str) -> str:
        if (count := self._calls[path]) != 1:
            return f"it is called {count} times"
        if self._returned[path] != 1:
            return "it returns several arrays"
        return "its weights are used outside of its call" if path in self._foreign else ""

    def end(self, flows: dict[str, Flow], reason: str) -> None:
        for path, flow in flows.items():
            output = self._found[path]
            output.free[flow.channels[flow.channels >= 0]] = False
            if not output.elsewhere:
                inside = f" in {self._inside[-1]}" if self._inside else ""
                output.elsewhere = f"{reason}{inside}"

    def run(self, jaxpr: Any, inputs: Sequence[_Value]) -> list[_Value]:
        known: dict[Any, _Value] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> _Value:
            if isinstance(atom, jex.Literal):
                return _Value(zero=np.ndim(atom.val) == 0 and bool(np.all(atom.val == 0)))
            return known.get(atom, _Value())

        for eqn in jaxpr.eqns:
            values = self._equation(eqn, [read(atom) for atom in eqn.invars])
            known.update(zip(eqn.outvars, values, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, values: list[_Value]) -> list[_Value]:
        name = eqn.primitive.name
        if name == "name" and eqn.params["name"].startswith((_IN, _OUT)):
            return [self._layer(eqn.params["name"], eqn.invars[0].aval.shape, values[0])]
        if name in _CALLS and (program := called(eqn)) is not None:
            function = str(eqn.params.get("name", ""))
            named = bool(function) and not function.startswith(("_", "<"))
            self._inside += [function] * named
            outs = self.run(program, values)
            del self._inside[len(self._inside) - named :]
            return outs
        followed: set[int] = set()
        for body, inputs in _bodies(eqn, values):
            followed.update(map(id, inputs))
            for value in self.run(body, [dataclasses.replace(v, flows={}) for v in inputs]):
                self.end(value.flows, f"it leaves a {name}")
        for value in values:
            if id(value) not in followed and name not in _COPIES:
                self._use(value)
        return self._passed(eqn, values)

    def _use(self, value: _Value) -> None:
        if value.owner is not None and value.owner not in self._open:
            self._foreign.update([value.owner, *self._open])

    def _layer(self, label: str, shape: tuple[int, ...], value: _Value) -> _Value:
        if label.startswith(_OUT):
            path, _, axes = label.removeprefix(_OUT).rpartition(_AXES)
            if path in self._open:
                self._open.remove(path)
            self.end(value.flows, f"it is used inside of {path}")
            self._returned[path] += 1
            if not shape or path in self._found:
                return _Value()
            self._found[path] = Output(np.ones(shape[-1], bool))
            if len(shape) != int(axes):  # any of them may be the one of vmap
                self._found[path] = Output(np.zeros(shape[-1], bool), [], "it is called in a vmap")
            return _Value({path: Flow((len(shape) - 1,), np.arange(shape[-1]))})
        path = label.removeprefix(_IN)
        self._calls[path] += 1
        self._open.append(path)
        for source, flow in value.flows.items():
            if set(flow.axes) <= {len(shape) - 1}:
                channels = np.broadcast_to(flow.channels, shape[-1:])
                self._found[source].ways.append(Way(path, flow.between, channels))
            else:
                self.end({source: flow}, f"{path} reads it along another axis")
        return _Value()

    def _passed(self, eqn: Any, values: list[_Value]) -> list[_Value]:
        flows: list[dict[str, Flow]] = [{} for _ in eqn.outvars]
        zeros = [value.zero for value in values]
        for source in dict.fromkeys(path for value in values for path in value.flows):
            operands = [self._living(source, value) for value in values]
            if not any(operands):
                continue
            outs = passed(eqn, operands, zeros)
            if isinstance(outs, str):
                for flow in operands:
                    self.end({} if flow is None else {source: flow}, outs)
                continue
            for found, flow in zip(flows, outs, strict=True):
                if flow is not None:
                    found[source] = flow
        copied = eqn.primitive.name in _COPIES
        zero = zeros[0] if copied or eqn.primitive.name in _SAME_NUMBER else False
        return [_Value(found, values[0].owner if copied else None, zero) for found in flows]

    def _living(self, source: str, value: _Value) -> Flow | None:
        """The flow of a layer in `value`; None where none of its channels can be rescaled."""
        flow = value.flows.get(source)
        if flow is None:
            return None
        there = flow.channels[flow.channels >= 0]
        return flow if self._found[source].free[there].any() else None


def _bodies(eqn: Any, values: list[_Value]) -> Iterator[tuple[Any, list[_Value]]]:
    """Programs that `eqn` may run more than once, or not, and what of `values` goes into them."""
    params = eqn.params
    if eqn.primitive.name == "scan":
        consts, _ = scan_parts(eqn)  # the others are another at each turn
        body = opened(params["jaxpr"])
        yield body, [*values[:consts], *_blank(len(body.invars) - consts)]
    elif eqn.primitive.name == "cond":
        for branch in params["branches"]:
            yield opened(branch), values[1:]
    else:
        for value in params.values():
            for item in value if isinstance(value, list | tuple) else (value,):
                if hasattr(body := opened(item), "eqns"):
                    yield body, _blank(len(body.invars))


def _blank(count: int) -> list[_Value]:
    return [_Value() for _ in range(count)]
