# SPDX-License-Identifier: Apache-2.0
"""Cards of the layers: each mechanism measured beside what it replaces, in `docs/layers/`."""

from efficient_layers.evidence.cards.card import Card, Side
from efficient_layers.evidence.cards.catalogue import CARDS, GROUPS, select
from efficient_layers.evidence.cards.compare import Compared, compare
from efficient_layers.evidence.cards.measure_all import measure_all
from efficient_layers.evidence.cards.page import record, render

__all__ = [
    "CARDS",
    "GROUPS",
    "Card",
    "Compared",
    "Side",
    "compare",
    "measure_all",
    "record",
    "render",
    "select",
]
