# SPDX-License-Identifier: Apache-2.0
"""What a compression technique is: it looks at a model and answers with changes."""

import builtins
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
from flax import nnx

from efficient_layers.models.paths import modules, pattern

Edit = dict[str, Any]
"""A change of structure without data, ready for JSON:

    {"op": "replace", "path": P of a module, "layer": a name of `el.layers`, "arguments": {...}}
    {"op": "resize", "path": P of a Variable, "shape": [...]}
    {"op": "set", "path": P of a module, "attributes": {name: value}}
    {"op": "tie", "path": P of a module, "to": P of the module that takes its place, too}
"""

Kind = type | str | tuple[type | str, ...] | None


@dataclasses.dataclass(frozen=True)
class Change:
    """One module touched.

    Attributes:
      path: the module's, "" for the model itself.
      why: for the log: "rank 24 of 64 keeps 95.2 % of the energy".
      edits: of the structure, in the order in which they are replayed.
      values: path of a Variable, as it is after the edits -> its new array. Shapes are checked,
        dtypes are cast to the Variable's.
    """

    path: str
    why: str
    edits: tuple[Edit, ...] = ()
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Skip:
    """One module left as it is, and why."""

    path: str
    why: str


class Context(NamedTuple):
    """What a technique sees. It changes none of it.

    Attributes:
      model: in eval mode.
      matched: (path, module of `model`) that the step's glob and `type` match and that no earlier
        step of the same technique matched; children before parents.
      example: an input, or None; a tuple means `model(*x)`, a dict `model(**x)`.
      data: batches that can be walked through more than once, or None.
      loss: `loss(model, batch)` -> a number, or None.
    """

    model: nnx.Module
    matched: tuple[tuple[str, nnx.Module], ...]
    example: Any = None
    data: Any = None
    loss: Callable[[Any, Any], jax.Array] | None = None


@dataclasses.dataclass(frozen=True)
class Technique:
    """A step of `el.compress.apply`: a glob on module paths and settings.

    Subclasses are frozen dataclasses that check their settings in `__post_init__`.

    Attributes:
      path: `*` and `?` stay between two `/`; `**` crosses them (`models/paths.pattern`).
      type: only modules of this class or subclass; a class, its name, or several.
    """

    needs: ClassVar[frozenset[str]] = frozenset()  # of "example", "data", "loss"; or a property

    path: str
    type: Kind = dataclasses.field(default=None, kw_only=True)

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        """Changes and skips, at most one a module; a matched module without one is logged so."""
        raise NotImplementedError

    def takes(self, module: nnx.Module) -> bool:
        """Whether `type` lets `module` through."""
        if self.type is None:
            return True
        kinds = self.type if isinstance(self.type, tuple) else (self.type,)
        names = {cls.__name__ for cls in builtins.type(module).__mro__}
        return any(k in names if isinstance(k, str) else isinstance(module, k) for k in kinds)

    def matches(self, model: nnx.Module) -> dict[str, nnx.Module]:
        """Path -> module that the glob and `type` match; children before parents, "" the model."""
        glob = pattern(self.path)
        known = [*modules(model), ("", model)]
        return {path: m for path, m in known if glob.fullmatch(path) and self.takes(m)}

    def __str__(self) -> str:
        """`LowRank("head", energy=0.95)`: settings that differ from their defaults."""
        settings = []
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                shown = str(value) if isinstance(value, Technique) else repr(value)
                shown = value.__name__ if isinstance(value, builtins.type) else shown
                settings.append(f"{field.name}={shown}")
        return f"{builtins.type(self).__name__}({', '.join([repr(self.path), *settings])})"
