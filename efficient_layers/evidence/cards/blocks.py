# SPDX-License-Identifier: Apache-2.0
"""Cards of the blocks: what each is measured against."""

from efficient_layers import layers
from efficient_layers.evidence.cards.card import Card, Side

CARDS = (
    Card(
        name="shuffle_unit",
        layers=("ShuffleUnit",),
        pays="mobile networks bound by memory traffic: half of the channels are never touched",
        x=(8, 28, 28, 116),
        baseline=Side(
            "InvertedResidual 116 -> 116, expansion 1",
            lambda rngs: layers.InvertedResidual(116, 116, expand_ratio=1, rngs=rngs),
        ),
        sides=(
            Side("ShuffleUnit 116 -> 116", lambda rngs: layers.ShuffleUnit(116, 116, rngs=rngs)),
        ),
    ),
)
