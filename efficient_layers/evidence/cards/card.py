# SPDX-License-Identifier: Apache-2.0
"""What a layer's card measures, as data: the layer beside what it replaces."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Num


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
      vocabulary: the input is int32 tokens below this; None: float32 numbers.
    """

    name: str
    layers: tuple[str, ...]
    pays: str
    x: tuple[int, ...]
    baseline: Side
    sides: tuple[Side, ...]
    vocabulary: int | None = None

    def input(self) -> Num[Array, "b *s"]:
        """What the sides are measured on: standard normal numbers, or tokens all equally likely."""
        draw = np.random.default_rng(0)
        if self.vocabulary is None:
            return jnp.asarray(draw.standard_normal(self.x, np.float32))
        return jnp.asarray(draw.integers(self.vocabulary, size=self.x, dtype=np.int32))
