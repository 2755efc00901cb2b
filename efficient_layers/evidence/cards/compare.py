# SPDX-License-Identifier: Apache-2.0
"""Measures a card: every side and its baseline in turn (A B C A B C ...), forward and gradients."""

import dataclasses

from flax import nnx

from efficient_layers import measure
from efficient_layers.evidence.cards.card import Card
from efficient_layers.evidence.jax_side import forward, gradients


@dataclasses.dataclass(frozen=True)
class Compared:
    """A row of the card: sizes, milliseconds (medians), and how many times as fast as the baseline.

    `weight_bytes` is what the stored tensors occupy. `forward_*` is inference; `training_*` is
    forward, statistics and all gradients.
    """

    label: str
    params: int
    macs: int
    weight_bytes: int
    forward_ms: float
    training_ms: float
    forward_ratio: float
    training_ratio: float


def compare(card: Card, *, calls: int = 30) -> list[Compared]:
    """The baseline's row, then one for each side."""
    x = card.input()
    sides = (card.baseline, *card.sides)
    modules = {side.label: side.make(nnx.Rngs(0)) for side in sides}
    costs = {label: measure.cost(module, x) for label, module in modules.items()}
    forwards = {label: forward(module, x) for label, module in modules.items()}
    trainings = {label: gradients(module, x) for label, module in modules.items()}
    forward_ms = _medians(forwards, calls)
    training_ms = _medians(trainings, calls)
    base = card.baseline.label
    return [
        Compared(
            label=label,
            params=costs[label].params,
            macs=costs[label].macs,
            weight_bytes=costs[label].weight_bytes,
            forward_ms=forward_ms[label],
            training_ms=training_ms[label],
            forward_ratio=forward_ms[base] / forward_ms[label],
            training_ratio=training_ms[base] / training_ms[label],
        )
        for label in modules
    ]


def _medians(sides: dict, calls: int) -> dict[str, float]:
    return {k: v.median_ms for k, v in measure.alternate(sides, calls=calls).items()}
