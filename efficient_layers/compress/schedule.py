# SPDX-License-Identifier: Apache-2.0
"""How sparse at which step of training."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """s(t) = final + (initial - final) (1 - (t - begin) / (end - begin))^power, begin <= t <= end.

    Before `begin` nothing is pruned. From then on masks are made anew every `every` steps and at
    `end`; steps count from 0.

    Reference: Zhu & Gupta, *To prune, or not to prune* (arXiv 1710.01878), section 3, equation 1.

    >>> round(float(polynomial(10, 20).sparsity(15, 0.8)), 6)
    0.7

    Raises:
      ValueError: not 0 <= begin < end, `every` below 1, a power that is not positive, initial
        outside [0, 1).
    """

    begin: int
    end: int
    power: float = 3.0
    every: int = 1
    initial: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end or self.every < 1:
            raise ValueError(f"A schedule expects 0 <= begin < end and every >= 1. Got {self}.")
        if self.power <= 0 or not 0 <= self.initial < 1:
            raise ValueError(f"A schedule expects power > 0 and initial in [0, 1). Got {self}.")

    def due(self, step: Any) -> Bool[Array, ""]:
        """Whether masks are made anew at this step."""
        inside = (step >= self.begin) & (step <= self.end)
        return inside & (((step - self.begin) % self.every == 0) | (step == self.end))

    def sparsity(self, step: Any, final: float) -> Float[Array, ""]:
        """Share of zeros from this step on."""
        done = (jnp.asarray(step, jnp.float32) - self.begin) / (self.end - self.begin)
        left = (1 - jnp.clip(done, 0, 1)) ** self.power
        return jnp.where(step < self.begin, 0.0, final + (self.initial - final) * left)


def polynomial(
    begin: int, end: int, *, power: float = 3.0, every: int = 1, initial: float = 0.0
) -> Polynomial:
    """A `Polynomial`, under the name of optax's schedules."""
    return Polynomial(begin, end, power, every, initial)
