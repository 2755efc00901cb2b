# SPDX-License-Identifier: Apache-2.0
"""How the weights of a trained layer become codes: to nearest, or as its inputs would have it."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.compress.adaround import adaround
from efficient_layers.compress.bias_correction import bias_correction
from efficient_layers.compress.gptq import Order, gptq
from efficient_layers.compress.moments import input_means, input_moments
from efficient_layers.compress.rounding_problem import (
    Problem,
    groups_of,
    kernel_of,
    matrices,
    problem_of,
)
from efficient_layers.layers.quant_spec import Codes

Choice = Literal["nearest", "gptq", "adaround"]
NAMES = {"gptq": "GPTQ", "adaround": "AdaRound"}
MOST_INPUTS = 8192  # their second moments take 512 MB


class Inputs(NamedTuple):
    """E[x x^T], (d, d) or (groups, d, d), and E[x], (d,) or (groups, d), where they are needed."""

    moment: np.ndarray | None
    mean: np.ndarray | None


class Rounded(NamedTuple):
    """`weight`: None for nearest; `shift`, to be added to the bias; `why`, for the log."""

    weight: Codes | None
    shift: np.ndarray | None
    why: str


@dataclasses.dataclass(frozen=True)
class Rounding:
    """Settings of the choice.

    Attributes:
      choice: "gptq" and "adaround" stay with "nearest" for outputs that it serves better.
      order, damping: of `gptq.gptq`.
      iterations: of `adaround.adaround`.
      correct_bias: see `bias_correction.bias_correction`.

    Raises:
      ValueError: a setting out of range.
    """

    choice: Choice = "nearest"
    order: Order = "index"
    damping: float = 0.01
    iterations: int = 1000
    correct_bias: bool = False

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(
                f"GPTQ expects order to be one of {get_args(Order)}. Got {self.order!r}."
            )
        if not 0 < self.damping <= 1:
            raise ValueError(f"GPTQ expects a damping in (0, 1]. Got {self.damping}.")
        if not isinstance(self.iterations, int) or self.iterations < 1:
            raise ValueError(f"AdaRound expects at least 1 iteration. Got {self.iterations!r}.")

    @property
    def needs_data(self) -> bool:
        return self.choice != "nearest" or self.correct_bias

    def refused(self, layer: Any) -> str:
        """Why this layer's codes are the nearest ones all the same, or ""."""
        if not hasattr(layer, "kernel"):
            return "an embedding multiplies nothing"
        inputs = layer.kernel[...].size // layer.kernel.shape[-1]
        if self.choice != "nearest" and inputs > MOST_INPUTS:
            return f"the second moments of {inputs:,} inputs take more than 512 MB"
        return ""

    def inputs(
        self, model: nnx.Module, paths: Iterable[str], batches: Iterable, loss: Callable | None
    ) -> dict[str, Inputs]:
        """What is asked for of the inputs at `paths`; modules never called are left out."""
        paths = list(paths)
        moments: dict[str, Any] = {}
        means: dict[str, Any] = {}
        if self.choice != "nearest":
            moments = input_moments(model, paths, batches, loss, grouped=True)
        if self.correct_bias:
            means = input_means(model, paths, batches, loss)
        return {
            path: Inputs(
                moments[path].total / moments[path].count if path in moments else None,
                means.get(path),
            )
            for path in paths
            if path in moments or path in means
        }

    def __call__(self, layer: Any, inputs: Inputs | None) -> Rounded:
        """Codes of a `QuantLinear`, `QuantConv` or `QuantEmbedding`; None: never called on data."""
        if not self.needs_data:
            return Rounded(None, None, "")
        if inputs is None:
            return Rounded(
                None, None, f", to nearest: {self.refused(layer) or 'not called on data'}"
            )
        nearest: Codes = _nearest(*nnx.split(layer))
        groups = groups_of(layer)
        codes = matrices(np.asarray(nearest[0], np.int64), groups)
        problem = problem_of(layer, nearest, inputs.moment)
        weight, shift, why = None, None, ""
        if inputs.moment is not None:
            found = problem.better(self._codes(problem), codes)
            before, after = (problem.errors(c).sum() for c in (codes, found))
            share = after / before if before > 0 else 1.0
            codes, why = found, f", {NAMES[self.choice]}: {share:.3g} of nearest's squared error"
            kernel = kernel_of(codes, layer.kernel.shape)
            weight = (jnp.asarray(kernel, jnp.int8), *nearest[1:])
        if inputs.mean is not None:
            mean = inputs.mean.reshape(groups, -1)
            shift = bias_correction(problem.w, problem.values(codes), mean)
            why += ", bias corrected"
        return Rounded(weight, shift, why)

    def _codes(self, problem: Problem) -> np.ndarray:
        if self.choice == "gptq":
            return gptq(problem, damping=self.damping, order=self.order)
        return adaround(problem, iterations=self.iterations)


@partial(jax.jit, static_argnums=0)  # one program for all layers of a shape
def _nearest(graphdef: nnx.GraphDef, state: nnx.State) -> Codes:
    return nnx.merge(graphdef, state, copy=True).nearest()
