# SPDX-License-Identifier: Apache-2.0
"""Cards of dense layers that hold fewer numbers than a full matrix."""

from efficient_layers.evidence.cards.card import Card

CARDS: tuple[Card, ...] = ()
