# SPDX-License-Identifier: Apache-2.0
"""Which weights go when each has a score: one by one, in blocks, or n kept of every m.

An array is seen as taps x inputs x outputs, a kernel of any rank: its last axis are the outputs,
the one before the inputs, what stands before (h and w of a convolution) the taps. Masks are made of
NumPy arrays (once, nothing to compile) or of JAX arrays under jit, by the same code.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from efficient_layers.models.fields import nearest

Shapes = Mapping[str, tuple[int, ...]]
Masks = dict[str, Array]


def is_weight(name: str, array: Any) -> bool:
    """Whether pruning looks at an array: floats of two or more dimensions that are multiplied.

    (1, n, d) is added to a batch (positions, a class token), unless it is a convolution's kernel.
    """
    added = len(array.shape) == 3 and array.shape[0] == 1 and name.rpartition("/")[2] != "kernel"
    return len(array.shape) > 1 and not added and jnp.issubdtype(array.dtype, jnp.floating)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Units of h inputs x w outputs that are zeroed together; 1 x 1 is "unstructured"."""

    h: int = 1
    w: int = 1

    def misfit(self, shape: tuple[int, ...]) -> str | None:
        """Why an array of this shape cannot be cut so, or None."""
        inputs, outputs = shape[-2:]
        if inputs % self.h or outputs % self.w:
            return f"blocks of ({self.h}, {self.w}) do not divide ({inputs}, {outputs})"
        return None

    def units(self, scores: Array, alive: Array) -> Float[Array, "r c"]:
        """The sum of the scores of a block's living weights; -inf where none is alive."""
        shape = (-1, self.h, scores.shape[-1] // self.w, self.w)
        xp = scores.__array_namespace__()
        total = xp.where(alive, scores, 0).reshape(shape).sum((1, 3))
        return xp.where(alive.reshape(shape).any((1, 3)), total, -xp.inf)

    def spread(self, kept: Bool[Array, "r c"], shape: tuple[int, ...]) -> Array:
        """A decision a block as one a weight."""
        return kept.repeat(self.h, 0).repeat(self.w, 1).reshape(shape)


@dataclasses.dataclass(frozen=True)
class NofM:
    """Of every m consecutive inputs of an output, the n with the highest scores stay.

    Reference: Mishra et al., *Accelerating Sparse Deep Neural Networks* (arXiv 2104.08378).
    """

    n: int
    m: int

    def misfit(self, shape: tuple[int, ...]) -> str | None:
        """Why an array of this shape cannot be cut so, or None."""
        inputs = shape[-2]
        return f"{self.m} does not divide its {inputs} inputs" if inputs % self.m else None

    def mask(self, scores: Array, alive: Array) -> Array:
        """True at the weights that stay; of equal scores the first."""
        xp = scores.__array_namespace__()
        parts = xp.where(alive, scores, -xp.inf).reshape(-1, self.m, scores.shape[-1])
        rank = xp.argsort(xp.argsort(-parts, axis=1, stable=True), axis=1)
        return (rank < self.n).reshape(scores.shape)


Pattern = Blocks | NofM


def parse(pattern: Any) -> Pattern:
    """ "unstructured", "2:4" (2 of every 4 stay), or a block: (4, 1) or "4x1".

    Raises:
      ValueError: anything else, n outside 1 ... m - 1, a side of a block below 1.
    """
    if pattern == "unstructured":
        return Blocks()
    if isinstance(pattern, str) and (found := re.fullmatch(r"(\d+):(\d+)", pattern)):
        n, m = map(int, found.groups())
        if not 1 <= n < m:
            raise ValueError(f"Pattern n:m expects n from 1 to m - 1. Got {pattern!r}.")
        return NofM(n, m)
    sides: Any = pattern
    if isinstance(pattern, str) and (found := re.fullmatch(r"(\d+)x(\d+)", pattern)):
        sides = tuple(map(int, found.groups()))
    if isinstance(sides, list | tuple) and len(sides) == 2:
        if not all(type(side) is int and side >= 1 for side in sides):
            raise ValueError(f"A block expects two sides of at least 1. Got {pattern!r}.")
        return Blocks(*sides)
    raise ValueError(
        f"Unknown pattern {pattern!r}. {nearest(str(pattern), ['unstructured', '2:4', '4x1'])} "
        "A pattern is 'unstructured', n:m ('2:4') or a block ('4x1', (4, 1))."
    )


def erk(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Sparsity an array, by Erdős-Rényi-Kernel: small arrays stay denser than large ones.

    density_l = min(1, e * sum(shape_l) / prod(shape_l)), with the e at which, over all arrays
    together, a share `sparsity` of the weights is zero. For matrices it is Erdős-Rényi (Mocanu et
    al., 2018, arXiv 1707.04780).

    Reference: Evci et al., *Rigging the Lottery* (arXiv 1911.11134), section 3.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        open_ = [name for name in shapes if name not in dense]
        kept = (1 - sparsity) * sum(sizes.values()) - sum(sizes[name] for name in dense)
        e = kept / max(sum(raw[name] * sizes[name] for name in open_), 1e-9)
        over = {name for name in open_ if e * raw[name] > 1}
        if not over:
            return {name: 0.0 if name in dense else 1 - e * raw[name] for name in shapes}
        dense |= over


def spread(shapes: Shapes, sparsity: float, distribution: str) -> dict[str, float]:
    """Sparsity an array for "uniform" or "erk"."""
    if distribution == "erk":
        return erk(shapes, sparsity)
    return dict.fromkeys(shapes, sparsity)


def choose(
    scores: Mapping[str, Array],
    alive: Mapping[str, Array],
    pattern: Pattern,
    *,
    sparsity: Mapping[str, float],
    scope: str = "layer",
    per_output: bool = False,
    share: Array | float = 1.0,
) -> Masks:
    """True at the weights that stay. Weights that are zero already are the first to go.

    round(sparsity * units) units go, as in `torch.nn.utils.prune`.

    Args:
      alive: where weights are not zero.
      sparsity: by array; with scope "global" all are compared with one another.
      per_output: unstructured weights are compared within their output only.
      share: of the units to go, the part that goes now; may be traced.
    """
    if isinstance(pattern, NofM):
        return {name: pattern.mask(scores[name], alive[name]) for name in scores}
    units = {name: pattern.units(scores[name], alive[name]) for name in scores}
    if scope == "global":
        kept = _highest_of_all(units, sparsity, share)
    else:
        kept = {name: _highest(u, sparsity[name], share, per_output) for name, u in units.items()}
    return {name: pattern.spread(kept[name], scores[name].shape) for name in scores}


def lowest(scores: Array, count: Any) -> Array:
    """True at the `count` lowest along the first axis; of equals the first. `count` may be traced.

    One sort of the values: to sort (value, place) costs XLA's CPU backend more.
    """
    xp = scores.__array_namespace__()
    bound = xp.sort(scores, axis=0)[xp.maximum(count, 1) - 1]
    below, equal = scores < bound, scores == bound
    ties = xp.cumsum(equal, axis=0) <= count - below.sum(0)
    return (below | (equal & ties)) & (count > 0)


def _highest_of_all(
    units: Mapping[str, Array], sparsity: Mapping[str, float], share: Array | float
) -> Masks:
    flat = [u.ravel() for u in units.values()]
    together = flat[0].__array_namespace__().concatenate(flat)
    count = sum(sparsity[name] * u.size for name, u in units.items())
    kept = ~lowest(together, _part(round(count), share))
    result, start = {}, 0
    for name, u in units.items():
        result[name] = kept[start : start + u.size].reshape(u.shape)
        start += u.size
    return result


def _highest(units: Array, sparsity: float, share: Array | float, per_output: bool) -> Array:
    if per_output:
        count = _part(round(sparsity * units.shape[0]), share)
        return ~lowest(units, count)
    return ~lowest(units.ravel(), _part(round(sparsity * units.size), share)).reshape(units.shape)


def _part(count: int, share: Array | float) -> Any:
    """share * count, whole: the full count is exact where float32 has no longer every integer."""
    if isinstance(share, float):
        return round(share * count)
    return jnp.where(share >= 1, count, jnp.round(share * count).astype(jnp.int32))
