# SPDX-License-Identifier: Apache-2.0
"""What a layer's card measures, as data: the layer beside what it replaces."""

from collections.abc import Callable
from dataclasses import dataclass

from flax import nnx


@dataclass(frozen=True)
class Side:
    """A column of the comparison: a label, and how to make the layer."""

    label: str
    make: Callable[[nnx.Rngs], nnx.Module]


@dataclass(frozen=True)
class Card:
    """One mechanism: `docs/layers/<name>.md`.

    Attributes:
      layers: public names that the card is about.
      pays: when it pays, in one phrase for the index.
      x: shape of the input, batch first.
      baseline: what the layer replaces; its dense counterpart where it has one.
      sides: the layer, in one or a few settings.
    """

    name: str
    layers: tuple[str, ...]
    pays: str
    x: tuple[int, ...]
    baseline: Side
    sides: tuple[Side, ...]
