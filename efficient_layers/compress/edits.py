# SPDX-License-Identifier: Apache-2.0
"""Edits: the structure of a compressed model as JSON, and the one function that replays them."""

import builtins
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.technique import Edit
from efficient_layers.models.fields import nearest
from efficient_layers.models.paths import at, modules, put

_DTYPES = ("dtype", "param_dtype")


def replace(path: str, layer: str, **arguments: Any) -> Edit:
    """The module at `path` becomes `layers.<layer>(**arguments)`; "nnx.Linear" is flax's.

    >>> replace("head", "LowRankLinear", in_features=8, out_features=4, rank=2, dtype=jnp.bfloat16)
    {'op': 'replace', 'path': 'head', 'layer': 'LowRankLinear', \
'arguments': {'in_features': 8, 'out_features': 4, 'rank': 2, 'dtype': 'bfloat16'}}

    Raises:
      TypeError: an argument that JSON cannot hold.
    """
    encoded = {name: _encoded(name, value) for name, value in arguments.items()}
    return {"op": "replace", "path": path, "layer": layer, "arguments": encoded}


def resize(path: str, shape: Iterable[int]) -> Edit:
    """The Variable at `path` gets another shape."""
    return {"op": "resize", "path": path, "shape": [int(n) for n in shape]}


def assign(path: str, **attributes: Any) -> Edit:
    """Static attributes of the module at `path` get other values; lists become tuples."""
    encoded = {name: _encoded(name, value) for name, value in attributes.items()}
    return {"op": "set", "path": path, "attributes": encoded}


def tie(path: str, to: str) -> Edit:
    """The module at `path` becomes the one at `to`, the very object, wherever it stands."""
    return {"op": "tie", "path": path, "to": to}


def values_of(path: str, module: nnx.Module) -> dict[str, Any]:
    """Path -> array of every Variable of `module`, for the `values` of a change that puts it there.

    `module` may come from a layer's own `from_...`; what stands in the model is what the edit makes
    of its arguments, and has to have the same Variables.
    """
    return {f"{path}/{name}" if path else name: v[...] for name, v in variables(module)}


def variables(module: nnx.Module) -> list[tuple[str, nnx.Variable]]:
    """(path, Variable) of all of a module's, each once."""
    found = nnx.iter_graph(module)
    return [("/".join(map(str, p)), v) for p, v in found if isinstance(v, nnx.Variable)]


def module_at(model: nnx.Module, path: str) -> Any:
    """The module at `path`; "" is the model itself."""
    return at(model, path) if path else model


def checked(edits: Iterable[Edit]) -> list[Edit]:
    """`edits` as JSON gives them back.

    Raises:
      TypeError: something in them is no JSON.
    """
    return json.loads(json.dumps(list(edits)))


def replay(model: nnx.Module, edits: Iterable[Edit]) -> None:
    """Edits `model` in place. New and resized Variables hold shapes and types, no arrays yet.

    Raises:
      ValueError: an edit that does not fit the model, or of a kind that is not known.
    """
    places = _Places(model)
    known: dict[str, Callable[[nnx.Module, Edit], None]] = {
        "replace": places.replace,
        "tie": places.tie,
        "resize": _resize,
        "set": _set,
    }
    for edit in edits:
        if edit.get("op") not in known:
            raise ValueError(f"An edit's op is one of {', '.join(known)}. Got {edit}.")
        try:
            known[edit["op"]](model, edit)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(
                f"The edit {json.dumps(edit)} does not fit this {type(model).__name__}: "
                f"{type(error).__name__}: {error}. Edits are replayed on the uncompressed model."
            ) from error


def in_train_mode(model: nnx.Module) -> bool:
    """Whether the first module with a mode trains; True where none has one, as in flax."""
    for _, module in [*modules(model), ("", model)]:
        for name in ("deterministic", "use_running_average"):
            if isinstance(mode := getattr(module, name, None), bool):
                return not mode
    return True


class _Places:
    """Where modules stand, so that a shared one stays shared. The model is walked once."""

    def __init__(self, model: nnx.Module) -> None:
        self._model = model
        self._known: dict[int, list[tuple[nnx.Module, str]]] | None = None
        self._trains = True

    def replace(self, model: nnx.Module, edit: Edit) -> None:
        name = edit["layer"]
        make = _layer(name)
        if not edit["path"]:
            raise ValueError(f"The model itself is not replaced by a {name}: use a Sequential.")
        arguments = {key: _decoded(key, value) for key, value in edit["arguments"].items()}
        new = nnx.eval_shape(lambda: make(**arguments, rngs=nnx.Rngs(0)))
        self._put(edit["path"], new)
        if not self._trains:
            new.eval()

    def tie(self, model: nnx.Module, edit: Edit) -> None:
        if f"{edit['to']}/".startswith(f"{edit['path']}/"):
            raise ValueError(f"A module is not tied to one inside of it. Got {edit}.")
        self._put(edit["path"], at(model, edit["to"]))

    def _put(self, path: str, new: nnx.Module) -> None:
        """`new` in every place of the module at `path`."""
        if self._known is None:
            self._walk()
        assert self._known is not None
        old = at(self._model, path)
        put(self._model, path, new)
        places = self._known.pop(id(old), [])
        for owner, attribute in places:
            setattr(owner, attribute, new)
        self._known.setdefault(id(new), []).extend(places)

    def _walk(self) -> None:
        self._trains = in_train_mode(self._model)
        self._known = {}
        for _, owner in [*modules(self._model), ("", self._model)]:
            for attribute, child in vars(owner).items():
                if isinstance(child, nnx.Module):
                    self._known.setdefault(id(child), []).append((owner, attribute))


def _layer(name: str) -> Any:
    known = {"nnx.Linear": nnx.Linear, "nnx.Conv": nnx.Conv, "nnx.Embed": nnx.Embed}
    if name in layers.__all__:
        return getattr(layers, name)
    if name not in known:
        raise ValueError(f"el.layers has no layer {name!r}. {nearest(name, layers.__all__)}")
    return known[name]


def _resize(model: nnx.Module, edit: Edit) -> None:
    variable = at(model, edit["path"])
    shape = tuple(edit["shape"])
    if len(shape) != len(variable.shape):
        raise ValueError(f"{edit['path']} has the shape {variable.shape}; got the edit {edit}.")
    if shape != tuple(variable.shape):
        variable.set_value(jax.ShapeDtypeStruct(shape, variable.dtype))


def _set(model: nnx.Module, edit: Edit) -> None:
    module = module_at(model, edit["path"])
    for name, value in edit["attributes"].items():
        if not hasattr(module, name):
            raise ValueError(
                f"{edit['path']} is a {type(module).__name__} without an attribute {name!r}."
            )
        setattr(module, name, _decoded(name, value))


def _encoded(name: str, value: Any) -> Any:
    if name in _DTYPES and value is not None:
        return jnp.dtype(value).name
    if isinstance(value, layers.QuantSpec):
        fields = dataclasses.fields(value)
        return {f.name: v for f in fields if (v := getattr(value, f.name)) != f.default}
    if isinstance(value, list | tuple):
        return [_encoded("", item) for item in value]
    if value is None or builtins.type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"An edit holds numbers, names, lists and None, so that JSON can. Got {name}={value!r}."
    )


def _decoded(name: str, value: Any) -> Any:
    if name in _DTYPES and value is not None:
        return getattr(jnp, value)
    if name == "spec":
        return layers.QuantSpec(**value)
    if isinstance(value, list):
        return tuple(_decoded("", item) for item in value)
    if isinstance(value, Mapping):
        return {key: _decoded(key, item) for key, item in value.items()}
    return value
