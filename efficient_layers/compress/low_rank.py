# SPDX-License-Identifier: Apache-2.0
"""Linear layers and convolutions as chains of thinner ones: SVD, spatial, Tucker-2, CP."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.compress.apply import rebuild
from efficient_layers.compress.edits import values_of
from efficient_layers.compress.low_rank_layers import (
    edit_of,
    grown,
    layer_of,
    numbers,
    refused,
    shown,
    strides_of,
    takes,
)
from efficient_layers.compress.moments import input_moments
from efficient_layers.compress.rank_budget import Curve, choose
from efficient_layers.compress.rank_choice import (
    METHODS,
    Choice,
    Method,
    Ranks,
    of_energy,
    of_rank,
    of_share,
)
from efficient_layers.compress.target import goal_of, reach
from efficient_layers.compress.technique import Change, Context, Skip, Technique
from efficient_layers.measure.cost import cost
from efficient_layers.ops.kernel_factors import CPFactors, cp_energy

_BUDGETS = ("macs", "latency_ms")
_STEPS = {"macs": 7, "latency_ms": 5}  # of the bisection: the MACs to 0.8 %, to 3 %


@dataclasses.dataclass(frozen=True)
class LowRank(Technique):
    """W ~ u v with u (in, rank), v (rank, out): the best of its rank (Eckart & Young 1936).

    Every `nnx.Linear` that the glob matches becomes a `LowRankLinear` (attention's projections are
    such), every convolution without groups, by `method`:

        svd       k x k to r channels, 1 x 1               FactorizedConv        arXiv 1505.06798
        spatial   k x 1 to r channels, 1 x k               SpatialSeparableConv  arXiv 1405.3866
        tucker2   1 x 1 to r, k x k to s, 1 x 1            TuckerConv            arXiv 1511.06530
        cp        1 x 1 to r, depthwise k x 1, 1 x k, 1x1  CPConv                arXiv 1412.6553

    Linear layers and 1 x 1 convolutions have one method, svd. What would not get smaller, in
    weights or in MACs, is skipped and the log says so.

    `macs` and `latency_ms` are for the whole model: the ranks of all matched layers are chosen
    together, so that the sum of their lost shares of energy is least for their MACs
    (`compress/rank_budget.py`), with the MACs found by bisection (`compress/target.py`). A layer
    where a MAC saved loses much stays whole.

    Attributes:
      method: of convolutions larger than 1 x 1; None: spatial, which lost the least of the outputs
        at the same MACs (docs/compress/low_rank.md), and svd with `whiten`.
      energy: the ranks with the fewest MACs that keep this share of |W|^2 (of SVD, the sum of the
        first squared singular values), in (0, 1].
      rank: the rank itself; of tucker2 both, at most the channels there are.
      params: the ranks that keep the most with at most this share of W's entries, in (0, 1).
      macs: what the model may cost on the example, batch 1; below 1, a share of what it costs now.
      latency_ms: what a call on the example may take, measured on this device; likewise.
      whiten: the error of the layer's outputs on `data`, |X W - X u v|, is minimised in place of
        that of its weights, and energy is that of X W. Methods None and svd.

    References: Denton et al., *Exploiting Linear Structure Within Convolutional Networks for
    Efficient Evaluation* (arXiv 1404.0736), section 3.2, for linear layers; whiten: Chen et al.,
    *DRONE*, NeurIPS 2021; Yuan et al., *ASVD* (arXiv 2312.05821), section 3; Wang et al., *SVD-LLM*
    (arXiv 2403.07378), section 3.1. Differs from SVD-LLM: all layers are whitened by the inputs of
    the uncompressed model.

    Raises:
      ValueError: not exactly one of energy, rank, params, macs and latency_ms, or out of range; a
        method that is not known, or cannot be whitened; weights that are not finite; a budget that
        cannot be met, with the best that can.
    """

    energy: float | None = None
    rank: int | None = None
    params: float | None = None
    macs: float | None = dataclasses.field(default=None, kw_only=True)
    latency_ms: float | None = dataclasses.field(default=None, kw_only=True)
    method: Method | None = dataclasses.field(default=None, kw_only=True)
    whiten: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._goal()
        if self.energy is not None and self.energy > 1:
            raise ValueError(f"LowRank expects an energy in (0, 1]. Got {self.energy}.")
        if self.rank is not None and not isinstance(self.rank, int):
            raise ValueError(f"LowRank expects a rank of at least 1. Got {self.rank!r}.")
        if self.params is not None and self.params >= 1:
            raise ValueError(f"LowRank expects params, a share, in (0, 1). Got {self.params}.")
        if self.method not in (None, *METHODS):
            raise ValueError(f"LowRank expects a method of {METHODS}. Got {self.method!r}.")
        if self.whiten and self.method not in (None, "svd"):
            raise ValueError(f'LowRank whitens with method="svd". Got {self.method!r}.')

    def _goal(self) -> tuple[str, float]:
        return goal_of(self, "energy", "rank", "params", names=_BUDGETS)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Data to whiten, an example for what the whole model costs."""
        example = {"example"} if self._goal()[0] in _BUDGETS else set()
        return frozenset(example | ({"data"} if self.whiten else set()))

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        taken: dict[str, Any] = {}
        for path, module in context.matched:
            if not takes(module):
                continue
            if reason := refused(path, module):
                yield Skip(path, reason)
            else:
                taken[path] = module
        grams = self._grams(context, taken)
        for path in [path for path in taken if self.whiten and path not in grams]:
            del taken[path]
            yield Skip(path, "not called on data")
        ranks = {path: self._ranks(path, m, grams.get(path)) for path, m in taken.items()}
        choices = self._choices(context, ranks)
        for path, module in taken.items():
            yield self._answer(path, module, ranks[path], choices[path])

    def _grams(self, context: Context, taken: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if not self.whiten:
            return {}
        found = input_moments(context.model, taken, context.data, context.loss)
        return {path: moments.total for path, moments in found.items() if moments is not None}

    def _ranks(self, path: str, module: Any, gram: np.ndarray | None) -> Ranks:
        kernel = np.asarray(module.kernel[...], np.float64)
        if not np.isfinite(kernel).all():
            raise ValueError(f"{self} expects finite weights. Got NaN or inf in {path}.")
        if self.whiten or math.prod(kernel.shape[:-2]) == 1:
            return Ranks("svd", kernel, strides_of(module), gram)
        return Ranks(self.method or "spatial", kernel, strides_of(module))

    def _choices(self, context: Context, ranks: Mapping[str, Ranks]) -> Mapping[str, Choice | None]:
        """None where no rank will do."""
        name, goal = self._goal()
        if name in _BUDGETS:
            return self._reach(context, ranks, name, goal)
        pick: Callable[[Ranks], Choice | None] = {
            "energy": partial(of_energy, energy=goal),
            "rank": partial(of_rank, rank=int(goal)),
            "params": partial(of_share, share=goal),
        }[name]
        return {path: pick(found) for path, found in ranks.items()}

    def _reach(
        self, context: Context, ranks: Mapping[str, Ranks], name: str, goal: float
    ) -> Mapping[str, Choice | None]:
        rows = cost(context.model, context.example).layers
        macs = {row.name: row.macs for row in rows if row.macs}
        whole: dict[str, Choice | None] = dict.fromkeys(ranks)
        curves = {path: Curve.of(ranks[path], macs[path]) for path in ranks if path in macs}
        modules = dict(context.matched)

        def build(strength: float) -> dict[str, Choice | None]:
            return whole | choose(curves, strength)

        def model_of(choices: Mapping[str, Choice | None]) -> nnx.Module:
            chosen = {path: choice for path, choice in choices.items() if choice is not None}
            edits = [edit_of(path, modules[path], choice) for path, choice in chosen.items()]
            graphdef, state = nnx.split(rebuild(context.model, edits))
            if name == "latency_ms":
                state = jax.tree.map(_filled, state)
            return nnx.merge(graphdef, state)

        return reach(
            name,
            goal,
            start=context.model,
            example=context.example,
            build=build,
            model_of=model_of,
            steps=_STEPS[name],
            who=self,
            limit="at rank 1",
        )

    def _answer(self, path: str, module: Any, ranks: Ranks, choice: Choice | None) -> Change | Skip:
        if choice is None:
            return Skip(path, self._without(ranks))
        if reason := grown(ranks, choice):
            return Skip(path, reason)
        layer, kept = layer_of(module, choice, ranks.gram), choice.kept
        if choice.method == "cp":
            factors = CPFactors(*(_wide(getattr(layer, part).kernel) for part in layer.parts))
            kept = cp_energy(ranks.kernel, factors)
        method = "" if isinstance(module, nnx.Linear) else f"{choice.method}, "
        sizes = f"{shown(choice.ranks)} of {numbers(ranks.ranks.max(0))}"
        what = "the outputs' energy" if self.whiten else "the energy"
        why = f"{method}{sizes} keeps {kept:.1%} of {what}"
        return Change(path, why, (edit_of(path, module, choice),), values_of(path, layer))

    def _without(self, ranks: Ranks) -> str:
        """Why no rank was chosen."""
        name, goal = self._goal()
        sizes = "x".join(map(str, ranks.kernel.shape))
        return {
            "rank": f"rank {goal} is outside of 1 to {ranks.ranks.max()} for {sizes}",
            "params": f"rank 1 already has more than {goal:.1%} of the weights",
            "energy": f"no rank that was tried keeps {goal:.1%} of the energy",
        }.get(name, "whole: other layers lose less for the MACs they save, or it is not called")


def _wide(kernel: nnx.Variable) -> np.ndarray:
    return np.asarray(kernel[...], np.float64)


def _filled(array: Any) -> jax.Array:
    """Zeros for a shape alone; a call takes as long for any weights."""
    alone = isinstance(array, jax.ShapeDtypeStruct)
    return jnp.zeros(array.shape, array.dtype) if alone else array
