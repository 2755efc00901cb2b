# SPDX-License-Identifier: Apache-2.0
"""One layer on one small input: what the battery runs through all of its checks."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from efficient_layers import layers

Oracle = Callable[[Any, np.ndarray], np.ndarray]
_MADE: dict[tuple, tuple] = {}  # drawing weights compiles a generator for every shape: do it once
QUICKLY = {"xla_backend_optimization_level": 0}  # for programs that run once


@dataclass(frozen=True)
class Case:
    """`layer(*args, **kwargs, rngs=...)` on a standard normal input of shape `x` gives shape `y`.

    With `vocabulary` the input is int32 tokens from 0 to `vocabulary - 1`, derivatives are taken
    along the parameters alone, and what the layer must refuse is floats.

    `oracle(module, x)` is the expected output in eval mode, by NumPy in float64 from the
    definition; `tolerance` is relative to the largest expected number. `smooth=False`: in train
    mode the gradient is not the derivative (straight-through), which is then checked in eval mode;
    "never": nor there (rounding), so only that gradients are finite and forward equals backward.
    `bfloat16_budget` bounds the error of computing in bfloat16, relative like `tolerance`.
    """

    layer: type[nnx.Module]
    args: tuple = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    x: tuple[int, ...] = ()
    y: tuple[int, ...] = ()
    name: str = ""
    oracle: Oracle | None = None
    tolerance: float = 1e-5
    smooth: bool | Literal["never"] = True
    bfloat16_budget: float = 3e-2
    vocabulary: int | None = None

    def __str__(self) -> str:
        return f"{self.layer.__name__} {self.name}".strip()

    def make(self, **overrides: Any) -> Any:
        """A new module, parameters and statistics random (not at their trivial first values)."""
        key = (id(self), nnx.set_graph_mode.current_value(), *overrides.items())
        if key not in _MADE:
            _MADE[key] = nnx.split(randomised(drawn(lambda: self._new(overrides))))
        return nnx.merge(*_MADE[key], copy=True)

    def abstract(self, **overrides: Any) -> Any:
        """The module without numbers: shapes in their place."""
        return nnx.eval_shape(lambda: self._new(overrides))

    def _new(self, overrides: Mapping[str, Any]) -> Any:
        rngs = {"rngs": nnx.Rngs(0)} if "rngs" in self.signature else {}
        return self.layer(*self.args, **{**self.kwargs, **overrides, **rngs})

    @property
    def signature(self) -> Mapping[str, inspect.Parameter]:
        """Parameters of the constructor, those that it hands on to its parent's included."""
        found: dict[str, inspect.Parameter] = {}
        for parent in self.layer.__mro__:
            if "__init__" in vars(parent):
                own = inspect.signature(vars(parent)["__init__"]).parameters
                found = {**own, **found}
                if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
                    break
        return found

    def takes(self, name: str) -> bool:
        """Whether a call takes the argument `name`."""
        return name in inspect.signature(self.layer.__call__).parameters

    @property
    def differentiable(self) -> tuple[int, ...]:
        """The arguments of `Program.scalar` that have a gradient."""
        return (0, 1) if self.vocabulary is None else (0,)

    def input_dtype(self, dtype: Any = np.float32) -> Any:
        """`dtype`, unless the input is tokens."""
        return dtype if self.vocabulary is None else np.int32

    def input(self, *, seed: int = 0, batch: int | None = None, dtype: Any = np.float32) -> Any:
        shape = self.x if batch is None else (batch, *self.x[1:])
        draw = np.random.default_rng(seed)
        values = (
            draw.integers(self.vocabulary, size=shape)
            if self.vocabulary
            else draw.normal(size=shape)
        )
        return values.astype(self.input_dtype(dtype))


def drawn(make: Callable[[], Any]) -> Any:
    """`make()`, its weights drawn by one program instead of one for every shape."""
    return nnx.merge(*jax.jit(lambda: nnx.split(make()), compiler_options=QUICKLY)())


def randomised(module: Any) -> Any:
    """`module` with its parameters jittered, and its statistics drawn (variances positive)."""
    draw = np.random.default_rng(1)
    for path, variable in nnx.to_flat_state(nnx.state(module)):
        value = variable.get_value()
        if not np.issubdtype(value.dtype, np.floating) and value.dtype != jax.numpy.bfloat16:
            continue
        noise = draw.normal(size=value.shape).astype(np.float32)
        positive = "var" in str(path[-1])
        new = 0.5 + noise**2 if positive else np.asarray(value, np.float32) + 0.2 * noise
        nnx.update(module, nnx.from_flat_state({path: jax.numpy.asarray(new, value.dtype)}))
    return module


@cache
def cases() -> tuple[Case, ...]:
    """All of `tests/layers/cases/`."""
    package = importlib.import_module("tests.layers.cases")
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"tests.layers.cases.{name}") for name in names]
    return tuple(case for module in modules for case in module.CASES)


def registered() -> dict[str, type[nnx.Module]]:
    """Every layer of the public face, by name."""
    found = {name: getattr(layers, name) for name in layers.__all__ if name != "List"}
    return {
        name: layer
        for name, layer in found.items()
        if inspect.isclass(layer) and issubclass(layer, nnx.Module)
    }
