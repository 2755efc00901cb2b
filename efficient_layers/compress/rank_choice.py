# SPDX-License-Identifier: Apache-2.0
"""The ranks that a layer can have by some method: what each costs, and how much of it is kept."""

import dataclasses
import functools
import math
from typing import Literal, NamedTuple, get_args

import numpy as np

from efficient_layers.ops.kernel_factors import (
    cp_energy,
    cp_factors,
    cp_limit,
    spatial_energy,
    spatial_limit,
    svd_energy,
    svd_limit,
    tucker2_energy,
)

Method = Literal["svd", "spatial", "tucker2", "cp"]
METHODS = get_args(Method)
CP_TRIES = 8  # ranks at which CP terms are fitted to find how much they keep
CP_ENOUGH = 0.9999  # no further fits


class Choice(NamedTuple):
    """`ranks`: one; of tucker2 two. `macs` are for each position of the output."""

    method: Method
    ranks: tuple[int, ...]
    weights: int
    macs: float
    kept: float


@dataclasses.dataclass(frozen=True, eq=False)
class Ranks:
    """All that `method` can make of a kernel, a row a choice, in rising order of every rank.

    With taps = kh kw and strides (sh, sw), the MACs for each position of the output, up to borders:

        dense     taps in out
        svd       r (taps in + out)
        spatial   r (kh in sw + kw out)
        tucker2   in r sh sw + taps r s + s out
        cp        r (in sh sw + kh sw + kw + out)

    and the weights the same without sh and sw. `kept` is the share of the squared norm of the
    kernel, or of the layer's outputs with `gram` = X^T X of its inputs. Of CP, whose every rank is
    a fit by itself, it is known at `CP_TRIES` ranks; those between them keep no less than the rank
    below.

    Args:
      kernel: (kh, kw, in, out) or (in, out), finite.
      strides: of the convolution.
      gram: for svd alone.
    """

    method: Method
    kernel: np.ndarray
    strides: tuple[int, int] = (1, 1)
    gram: np.ndarray | None = None

    @functools.cached_property
    def ranks(self) -> np.ndarray:
        """(n, 1); of tucker2 (n, 2)."""
        if self.method == "tucker2":
            return np.indices(self.kernel.shape[2:]).reshape(2, -1).T + 1
        limits = {"svd": svd_limit, "spatial": spatial_limit, "cp": cp_limit}
        return np.arange(1, limits[self.method](self.kernel.shape) + 1)[:, None]

    @functools.cached_property
    def weights(self) -> np.ndarray:
        return self._products(1, 1).astype(np.int64)

    @functools.cached_property
    def macs(self) -> np.ndarray:
        return self._products(*self.strides)

    @functools.cached_property
    def kept(self) -> np.ndarray:
        if self.method == "svd":
            return svd_energy(self.kernel, gram=self.gram)
        if self.method == "spatial":
            return spatial_energy(self.kernel)
        if self.method == "tucker2":
            return tucker2_energy(self.kernel).ravel()
        pays = max(1, int(np.searchsorted(self.weights, self.kernel.size)))
        kept = np.zeros(len(self.ranks))
        for rank in np.unique(np.geomspace(1, pays, CP_TRIES).round().astype(int)):
            found = cp_energy(self.kernel, cp_factors(self.kernel, int(rank)))
            kept[rank - 1 :] = max(kept[rank - 1], found)
            if found > CP_ENOUGH:
                break
        return kept

    def _products(self, sh: int, sw: int) -> np.ndarray:
        *size, inputs, outputs = self.kernel.shape
        (kh, kw), taps, r = size or (1, 1), math.prod(size), self.ranks[:, 0]
        if self.method == "svd":
            return r * (taps * inputs + outputs)
        if self.method == "spatial":
            return r * (kh * inputs * sw + kw * outputs)
        if self.method == "cp":
            return r * (inputs * sh * sw + kh * sw + kw + outputs)
        s = self.ranks[:, 1]
        return inputs * r * sh * sw + s * (taps * r + outputs)

    def choice(self, index: int | np.integer) -> Choice:
        """A row."""
        ranks = tuple(map(int, self.ranks[index]))
        costs = int(self.weights[index]), float(self.macs[index])
        # What a rank of CP keeps is known after its fit alone.
        kept = math.nan if self.method == "cp" else float(self.kept[index])
        return Choice(self.method, ranks, *costs, kept)


def of_rank(ranks: Ranks, rank: int) -> Choice | None:
    """`rank` itself; tucker2 takes it on both sides, at most the channels there are."""
    limits = ranks.ranks.max(0)
    if not 1 <= rank <= limits.max():
        return None
    wanted = (ranks.ranks == np.minimum(rank, limits)).all(1)
    return ranks.choice(int(np.argmax(wanted)))


def of_energy(ranks: Ranks, energy: float) -> Choice | None:
    """The one with the fewest MACs of those that keep `energy`."""
    enough = np.flatnonzero(ranks.kept >= energy - 1e-12)  # sums in floating point
    return ranks.choice(enough[np.argmin(ranks.macs[enough])]) if len(enough) else None


def of_share(ranks: Ranks, share: float) -> Choice | None:
    """The one that keeps the most of those with at most `share` of the weights."""
    few = np.flatnonzero(ranks.weights <= share * ranks.kernel.size)
    if not len(few):
        return None
    if ranks.method == "cp":  # the more terms the better; known without a fit
        return ranks.choice(few[-1])
    return ranks.choice(few[np.argmax(ranks.kept[few])])
