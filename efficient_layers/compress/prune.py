# SPDX-License-Identifier: Apache-2.0
"""Pruning: the least important weights of a model become exact zeros."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import nnx

from efficient_layers.compress import criteria
from efficient_layers.compress.patterns import (
    Blocks,
    NofM,
    Pattern,
    choose,
    is_weight,
    parse,
    spread,
)
from efficient_layers.compress.schedule import Polynomial
from efficient_layers.compress.technique import Change, Context, Skip, Technique
from efficient_layers.models.fields import nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prune(Technique):
    """w <- mask * w, where the mask is 0 at the weights with the lowest scores.

        Prune("**/conv*", sparsity=.8)
        Prune("**", sparsity=.9, method="snip", scope="global")          # needs data, loss
        Prune("blocks/**", pattern="2:4", method="wanda")                # needs data
        Prune("**", sparsity=.9, method="random", distribution="erk")    # where RigL begins

    Of every matched module the float Params of two or more dimensions are pruned, embeddings too if
    the glob or `type` lets them through; biases, norms, positions and class tokens are not. Nothing
    shrinks and no dense program gets faster: the weights are *masked*. Training on brings them back
    unless the optimiser is wrapped in `keep_zeros`.

    Attributes:
      sparsity: share of zeros, those there are included; with "n:m" it is 1 - n/m and not given.
      method: of `criteria.py`: magnitude, random, taylor, snip, movement, wanda.
      pattern: "unstructured", "n:m" (n of m consecutive inputs stay), a block "4x1" or (4, 1),
        inputs first. Arrays that it does not divide are skipped.
      scope: "layer" compares within an array (wanda: within an output), "global" over all.
      distribution: "uniform", or "erk": small arrays stay denser (`patterns.erk`).
      schedule: for `gradual(tx, step)`, which prunes while training; `apply` takes none.
      seed: of method "random".

    Reference: Han et al., *Learning both Weights and Connections for Efficient Neural Networks*
    (arXiv 1506.02626), section 3; the other methods' are in `criteria.py`.

    Raises:
      ValueError: sparsity outside [0, 1), an unknown method, pattern, scope or distribution,
        settings that contradict; from `apply`, a pattern that divides no matched array, a schedule.
    """

    sparsity: float | None = None
    method: str = "magnitude"
    pattern: str | tuple[int, int] = "unstructured"
    scope: str = "layer"
    distribution: str = "uniform"
    schedule: Polynomial | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            if (got := getattr(self, name)) not in known:
                raise ValueError(f"Prune: unknown {name} {got!r}. {nearest(str(got), known)}")
        if isinstance(self.pattern, list):  # as JSON gives it back
            object.__setattr__(self, "pattern", tuple(self.pattern))
        _check_sparsity(self, self.parsed)
        if self.scope == "global" and self.distribution != "uniform":
            raise ValueError(
                "Prune: with scope='global' the scores decide how sparse an array is; "
                f"leave out distribution={self.distribution!r} or the scope."
            )
        if self.scope == "global" and self.method == "wanda":
            raise ValueError("Prune: wanda compares within an output. Use scope='layer'.")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return criteria.NEEDS[self.method]

    @property
    def parsed(self) -> Pattern:
        """The pattern as an object."""
        return parse(self.pattern)

    @property
    def share(self) -> float:
        """The sparsity, of n:m too."""
        cut = self.parsed
        return 1 - cut.n / cut.m if isinstance(cut, NofM) else float(self.sparsity or 0)

    def misfit(self, name: str, shape: tuple[int, ...]) -> str | None:
        """Why the pattern does not fit an array, or None."""
        last = name.rpartition("/")[2]
        if last.startswith("weight_") and self.parsed != Blocks():  # torch's LSTM and GRU
            return "its inputs are the last axis; patterns expect them before the outputs"
        return self.parsed.misfit(shape)

    def plan(self, context: Context) -> Iterator[Change | Skip]:
        """New values of the matched modules' weights; no edits."""
        if self.schedule is not None:
            raise ValueError(
                f"{self} prunes while training: give it to el.compress.gradual(tx, step), "
                "or leave out the schedule to prune at once."
            )
        weights, misfits = self._weights(context)
        scores = criteria.scores(self.method, context, weights, seed=self.seed)
        weights = {name: w for name, w in weights.items() if name in scores}
        masks = self.masks(weights, scores)
        for path, module in context.matched:
            yield from self._answer(path, module, weights, masks, misfits)

    def masks(
        self, weights: dict[str, Any], scores: dict[str, Any], share: Any = 1.0
    ) -> dict[str, Any]:
        """True where weights stay, when a `share` of what is to go has gone. Runs under jit."""
        cut = self.parsed
        return choose(
            scores,
            {name: w != 0 for name, w in weights.items()},
            cut,
            sparsity=spread(
                {n: w.shape for n, w in weights.items()}, self.share, self.distribution
            ),
            scope=self.scope,
            per_output=self.method == "wanda" and self.pattern == "unstructured",
            share=share,
        )

    def _weights(self, context: Context) -> tuple[dict[str, Any], dict[str, str]]:
        """Arrays to prune by name, each once; why others are not, by the path of their module."""
        weights: dict[str, Any] = {}
        misfits: dict[str, str] = {}
        seen: set[int] = set()
        for path, module in context.matched:
            for name, variable in own_weights(path, module):
                why = self.misfit(name, variable.shape)
                if id(variable) in seen:
                    why = "tied to weights that are pruned elsewhere"
                if why:
                    misfits[path] = f"{name.rpartition('/')[2]}: {why}"
                else:
                    seen.add(id(variable))
                    weights[name] = np.asarray(variable[...])
        if not weights and misfits:
            shown = "; ".join(f"{path or '(root)'}: {why}" for path, why in misfits.items())
            raise ValueError(f"{self} fits no array: {shown}.")
        if not weights:
            raise ValueError(
                f"{self} matches no float Param of two or more dimensions. "
                f"Matched: {', '.join(path or '(root)' for path, _ in context.matched)}."
            )
        return weights, misfits

    def _answer(
        self,
        path: str,
        module: nnx.Module,
        weights: dict[str, Any],
        masks: dict[str, Any],
        misfits: dict[str, str],
    ) -> Iterator[Change | Skip]:
        own = [name for name, _ in own_weights(path, module)]
        found = {
            n: np.where(masks[n], weights[n], np.zeros((), weights[n].dtype))
            for n in own
            if n in masks
        }
        if found:
            zeros = sum(int((w == 0).sum()) for w in found.values())
            size = sum(w.size for w in found.values())
            why = f"masked {zeros / size:.1%} ({zeros:,} of {size:,}), {self.method}"
            why += f"; not {misfits[path]}" if path in misfits else ""
            yield Change(path, why, values=found)
        elif path in misfits:
            yield Skip(path, misfits[path])
        elif own:
            yield Skip(path, f"{self.method} has no scores for a {type(module).__name__}")
        elif any(isinstance(value, nnx.Param) for value in vars(module).values()):
            yield Skip(path, "no float weights of two or more dimensions")


def own_weights(path: str, module: nnx.Module) -> list[tuple[str, nnx.Param]]:
    """(name, Param) of a module's own float weights of two or more dimensions.

    >>> [name for name, _ in own_weights("head", nnx.Linear(2, 3, rngs=nnx.Rngs(0)))]
    ['head/kernel']
    """
    return [
        (f"{path}/{name}" if path else str(name), value)
        for name, value in vars(module).items()
        if isinstance(value, nnx.Param) and is_weight(str(name), value)
    ]


_KNOWN = {
    "method": tuple(criteria.NEEDS),
    "scope": ("layer", "global"),
    "distribution": ("uniform", "erk"),
}


def _check_sparsity(step: Prune, cut: Pattern) -> None:
    if isinstance(cut, NofM):
        fixed = 1 - cut.n / cut.m
        if step.sparsity not in (None, fixed):
            raise ValueError(f"Prune: {step.pattern} is sparsity {fixed}. Got {step.sparsity}.")
        if (step.scope, step.distribution, step.schedule) != ("layer", "uniform", None):
            raise ValueError(
                f"Prune: {step.pattern} fixes the sparsity of every array; scope, distribution "
                "and schedule do not apply. Leave them out."
            )
    elif step.sparsity is None or not 0 <= step.sparsity < 1:
        raise ValueError(f"Prune expects a sparsity in [0, 1). Got {step.sparsity}.")
