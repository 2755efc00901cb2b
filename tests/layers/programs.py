# SPDX-License-Identifier: Apache-2.0
"""A case as pure functions of flat arrays: what the battery differentiates, maps and shards."""

import inspect
import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.train.state import Arrays, merge, split
from tests.layers.case import Case


@dataclass(frozen=True)
class Program:
    """A module taken apart: `run(params, rest, x) -> (y, rest)`, with fixed randomness."""

    case: Case
    graphdef: Any
    params: Arrays
    rest: Arrays
    training: bool

    def run(self, params: Arrays, rest: Arrays, x: jax.Array) -> tuple[jax.Array, Arrays]:
        module = merge(self.graphdef, params, rest)
        y = module(x, **self.randomness())
        return y, split(module)[2]

    def named(self, params: Arrays, x: jax.Array) -> dict[str, jax.Array]:
        """The intermediates under `out`, made and returned here so that no tracer leaks."""
        out: dict[str, jax.Array] = {}
        merge(self.graphdef, params, self.rest)(x, out=out, **self.randomness())
        return out

    def randomness(self) -> dict[str, Any]:
        draws = self.training and self.case.takes("rngs")
        return {"rngs": nnx.Rngs(default=jax.random.key(3))} if draws else {}

    def y(self, params: Arrays, x: jax.Array) -> jax.Array:
        return self.run(params, self.rest, x)[0]

    def scalar(self, params: Arrays, x: jax.Array) -> jax.Array:
        """A number that depends on every output, each with its own weight."""
        y = self.y(params, x)
        weights = np.random.default_rng(2).normal(size=y.shape)
        return (y * jnp.asarray(weights, y.dtype)).sum()


def program(case: Case, *, training: bool = True, **overrides: Any) -> Program:
    """`case` made anew and taken apart, in train or in eval mode."""
    module = case.make(**overrides)
    module.train() if training else module.eval()
    return Program(case, *split(module), training)


def as_type(arrays: Arrays, dtype: Any) -> Arrays:
    """Floating arrays cast to `dtype`, others as they are."""
    floating = {k: jnp.issubdtype(v.dtype, jnp.floating) for k, v in arrays.items()}
    return {
        k: jnp.asarray(np.asarray(v).astype(dtype)) if floating[k] else v for k, v in arrays.items()
    }


def cost_formulas(case: Case, module: nnx.Module, y: tuple[int, ...]) -> dict[str, Any]:
    """What the docstring's cost paragraph, which is Python, says for `case`."""
    paragraphs = (inspect.getdoc(case.layer) or "").split("\n\n")
    found = [text for text in paragraphs if re.search(r"^params = ", text, re.M)]
    assert found, f"{case.layer.__name__} has no cost paragraph (params = ..., MACs = ...)"
    names = _arguments(case) | _attributes(module) | _axes(case, y)
    scope: dict[str, Any] = {**vars(math), **names}
    exec(found[0], scope)  # our own docstring
    return {"params": scope["params"], "MACs": scope["MACs"]}


def _arguments(case: Case) -> dict[str, Any]:
    defaults = {k: p.default for k, p in case.signature.items() if p.default is not p.empty}
    positional = [k for k, p in case.signature.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    given = dict(zip(positional[1:], case.args, strict=False))  # without self
    return {**defaults, **given, **case.kwargs}


def _attributes(module: nnx.Module) -> dict[str, Any]:
    """Public ones that hold values: sizes as the layer understood them."""
    return {k: v for k, v in vars(module).items() if not k.startswith("_")}


def _axes(case: Case, y: tuple[int, ...]) -> dict[str, int]:
    """Axes by the names that the annotations of `__call__` give them."""
    hints = case.layer.__call__.__annotations__
    values: dict[str, int] = {"positions": math.prod(y[1:-1])}
    first = next(name for name in hints if name != "return")
    for hint, shape in ((hints[first], case.x), (hints["return"], y)):
        tokens = getattr(hint, "dim_str", "").split()
        for token, size in zip(reversed(tokens), reversed(shape), strict=False):
            if token.isidentifier():
                values[token] = size
    return values
