# SPDX-License-Identifier: Apache-2.0
"""Ranks of many layers at once: as little as possible lost for the MACs that they may cost."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from efficient_layers.compress.rank_choice import Choice, Ranks


class Curve(NamedTuple):
    """What a layer may cost and lose: the layer as it is (-1 of `rows`), then rows of `ranks`.

    `macs` are of all the calls of the layer; `lost` is a share of its energy.
    """

    ranks: Ranks
    rows: np.ndarray
    macs: np.ndarray
    lost: np.ndarray

    @classmethod
    def of(cls, ranks: Ranks, macs: float) -> "Curve":
        """Of a layer that costs `macs` now: what is smaller in weights and in MACs, and itself."""
        dense = ranks.kernel.size
        rows = np.flatnonzero((ranks.weights < dense) & (ranks.macs < dense))
        costs = macs * np.concatenate([[1.0], ranks.macs[rows] / dense])
        lost = np.concatenate([[0.0], 1 - ranks.kept[rows]])
        return cls(ranks, np.concatenate([[-1], rows]), costs, lost)

    def cheapest(self) -> int:
        """Of the least MACs, the place that loses least."""
        return int(np.lexsort((self.lost, self.macs))[0])

    def at_price(self, price: float) -> int:
        """The place where lost + price macs is least."""
        return int(np.argmin(self.lost + price * self.macs))

    def within(self, macs: float) -> int:
        """The place that loses least for at most `macs`."""
        return int(np.argmin(np.where(self.macs <= macs, self.lost, np.inf)))

    def choice(self, place: int) -> Choice | None:
        """None: the layer as it is."""
        row = int(self.rows[place])
        return None if row < 0 else self.ranks.choice(row)


def choose(curves: Mapping[str, Curve], strength: float) -> dict[str, Choice | None]:
    """The ranks of layers that cost (1 - strength) of the way from the cheapest to whole layers.

    The sum of what they lose is made least for the sum of MACs, by one price of a MAC for all
    layers (Lagrange; found by bisection). That reaches corners of the convex hull of all choices:
    what is left of the budget then goes, one after the other, to the layer that gains the most.
    """
    if not curves:
        return {}
    least = {path: curve.cheapest() for path, curve in curves.items()}
    floor, ceiling = _sum(curves, least), sum(c.macs[0] for c in curves.values())
    budget = floor + (1 - strength) * (ceiling - floor)
    places = _at_one_price(curves, least, budget)
    for _ in curves:
        rest = budget - _sum(curves, places)
        gains = {}
        for path, curve in curves.items():
            better = curve.within(curve.macs[places[path]] + rest)
            gains[path] = curve.lost[places[path]] - curve.lost[better], better
        path = max(gains, key=lambda path: gains[path][0])
        if gains[path][0] <= 0:
            break
        places[path] = gains[path][1]
    return {path: curve.choice(places[path]) for path, curve in curves.items()}


def _at_one_price(
    curves: Mapping[str, Curve], least: dict[str, int], budget: float
) -> dict[str, int]:
    """The places at the lowest price whose sum is within `budget`; `least` where none is."""
    low, high, best = -60.0, 60.0, dict(least)  # price = e^low ... e^high
    while high - low > 1e-3:
        middle = (low + high) / 2
        places = {path: curve.at_price(np.exp(middle)) for path, curve in curves.items()}
        if _sum(curves, places) <= budget:
            high, best = middle, places
        else:
            low = middle
    return best


def _sum(curves: Mapping[str, Curve], places: Mapping[str, int]) -> float:
    return float(sum(curve.macs[places[path]] for path, curve in curves.items()))
