# SPDX-License-Identifier: Apache-2.0
"""Linear layers as products of two thinner ones, by the singular value decomposition."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from flax import nnx

from efficient_layers.compress.edits import replace, values_of
from efficient_layers.compress.technique import Change, Context, Skip, Technique
from efficient_layers.layers import LowRankLinear


@dataclasses.dataclass(frozen=True)
class LowRank(Technique):
    """W ~ u v with u (in, rank), v (rank, out): the best of its rank (Eckart & Young 1936).

    Every `nnx.Linear` that the glob matches becomes a `LowRankLinear`; attention's projections are
    such. With the singular values s, the squared error of W is the sum of s[rank:]^2. One that
    would not get smaller, rank >= in out / (in + out), is skipped and the log says so.

    Attributes:
      energy: the least rank whose s^2 are this share of their sum, in (0, 1].
      rank: the rank itself.
      params: the greatest rank whose factors hold at most this share of W's entries, in (0, 1).

    Reference: Denton et al., *Exploiting Linear Structure Within Convolutional Networks for
    Efficient Evaluation* (arXiv 1404.0736), section 3.2.

    Raises:
      ValueError: not exactly one of the three, or out of range; weights that are not finite.
    """

    energy: float | None = None
    rank: int | None = None
    params: float | None = None

    def __post_init__(self) -> None:
        given = {"energy": self.energy, "rank": self.rank, "params": self.params}
        if sum(value is not None for value in given.values()) != 1:
            raise ValueError(
                f"LowRank expects energy=, rank= or params=, one of them. Got {given}."
            )
        if self.energy is not None and not 0 < self.energy <= 1:
            raise ValueError(f"LowRank expects an energy in (0, 1]. Got {self.energy}.")
        if self.rank is not None and (self.rank < 1 or not isinstance(self.rank, int)):
            raise ValueError(f"LowRank expects a rank of at least 1. Got {self.rank!r}.")
        if self.params is not None and not 0 < self.params < 1:
            raise ValueError(f"LowRank expects params, a share, in (0, 1). Got {self.params}.")

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        for path, module in context.matched:
            if isinstance(module, nnx.Linear):
                yield self._linear(path, module)

    def _linear(self, path: str, linear: nnx.Linear) -> Change | Skip:
        kernel = np.asarray(linear.kernel[...], np.float64)
        if not path or kernel.ndim != 2:
            return Skip(path, "the model itself" if not path else f"stacked: {kernel.shape}")
        if not np.isfinite(kernel).all():
            raise ValueError(f"{self} expects finite weights. Got NaN or inf in {path}.")
        inputs, outputs = kernel.shape
        rank, limit = self._rank(inputs, outputs), min(inputs, outputs)
        if rank is not None and not 1 <= rank <= limit:
            return Skip(path, f"rank {rank} is outside of 1 to {limit} for {inputs}x{outputs}")
        if rank is not None and (grown := _grown(rank, inputs, outputs)):
            return Skip(path, grown)
        layer = LowRankLinear.from_linear(linear, rank=rank, energy=self.energy)
        if grown := _grown(layer.rank, inputs, outputs):
            return Skip(path, grown)
        kept = _energy(layer, kernel)
        sizes = {"in_features": inputs, "out_features": outputs, "rank": layer.rank}
        types = {"dtype": linear.dtype, "param_dtype": linear.param_dtype}
        edit = replace(path, "LowRankLinear", **sizes, use_bias=linear.bias is not None, **types)
        why = f"rank {layer.rank} of {limit} keeps {kept:.1%} of the energy"
        return Change(path, why, (edit,), values_of(path, layer))

    def _rank(self, inputs: int, outputs: int) -> int | None:
        """The rank, where it does not depend on the weights."""
        if self.params is not None:
            return int(self.params * inputs * outputs / (inputs + outputs))
        return self.rank


def factorised(path: str, layer: LowRankLinear) -> Change:
    """A `LowRankLinear` as two `nnx.Linear`s in a `FactorizedLinear`, which can be quantised."""
    names = ("in_features", "out_features", "rank", "use_bias", "dtype", "param_dtype")
    edit = replace(path, "FactorizedLinear", **{name: getattr(layer, name) for name in names})
    values = {f"{path}/reduce/kernel": layer.u[...], f"{path}/expand/kernel": layer.v[...]}
    if layer.bias is not None:
        values[f"{path}/expand/bias"] = layer.bias[...]
    return Change(path, "two linear layers", (edit,), values)


def _grown(rank: int, inputs: int, outputs: int) -> str:
    """Why the factors of `rank` are refused, or ""."""
    factors, whole = rank * (inputs + outputs), inputs * outputs
    if factors < whole:
        return ""
    return (
        f"rank {rank} would take {factors:,} weights in place of {whole:,}: it pays below rank "
        f"{-(-whole // (inputs + outputs))}"
    )


def _energy(layer: LowRankLinear, kernel: np.ndarray) -> float:
    """Share of the squared singular values of `kernel` that `layer` keeps."""
    # The factors have the singular values' square roots on both sides: |u_i|^2 = s_i.
    kept = (np.square(np.asarray(layer.u[...], np.float64)).sum(0) ** 2).sum()
    return float(kept / max(np.square(kernel).sum(), np.finfo(np.float64).tiny))
