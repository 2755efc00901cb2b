# SPDX-License-Identifier: Apache-2.0
"""Averages that a table prints beside the cells they are of."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from efficient_layers.evidence.verdict import Computed, number

_HALF = Fraction(1, 2)


def mean(groups: Iterable[Iterable[Any]]) -> Computed:
    """The mean of groups of cells, each averaged first; "84.5/81.0" is two numbers.

    The rounding of the cells may move it: that is the slack.
    """
    averaged = [_group(cells) for cells in groups]
    values, slacks = zip(*averaged, strict=True)
    return Computed(sum(values) / len(values), slack=sum(slacks) / len(slacks))


def _group(cells: Iterable[Any]) -> tuple[Fraction, Fraction]:
    numbers = [number(part) for cell in cells for part in str(cell).split("/")]
    halves = [_HALF * Fraction(10) ** int(n.as_tuple().exponent) for n in numbers]
    return sum(map(Fraction, numbers), Fraction(0)) / len(numbers), sum(halves, Fraction(0)) / len(
        halves
    )
