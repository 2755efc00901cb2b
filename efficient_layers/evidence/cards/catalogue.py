# SPDX-License-Identifier: Apache-2.0
"""All cards, in the order of the index."""

from collections.abc import Mapping
from types import MappingProxyType

from efficient_layers.evidence.cards.attention import CARDS as ATTENTION
from efficient_layers.evidence.cards.blocks import CARDS as BLOCKS
from efficient_layers.evidence.cards.card import Card
from efficient_layers.evidence.cards.convolutions import CARDS as CONVOLUTIONS
from efficient_layers.evidence.cards.dense import CARDS as DENSE
from efficient_layers.evidence.cards.embeddings import CARDS as EMBEDDINGS
from efficient_layers.evidence.cards.norms import CARDS as NORMS
from efficient_layers.evidence.cards.quantized import CARDS as QUANTIZED
from efficient_layers.evidence.cards.sequence import CARDS as SEQUENCE
from efficient_layers.evidence.globs import matching

GROUPS: Mapping[str, tuple[Card, ...]] = MappingProxyType(
    {
        "Convolutions": CONVOLUTIONS,
        "Blocks and low-rank convolutions": BLOCKS,
        "Dense": DENSE,
        "Embeddings": EMBEDDINGS,
        "Normalisation, activation, regularisation, sharing": NORMS,
        "Softmax attention": ATTENTION,
        "Linear attention and recurrence": SEQUENCE,
        "Quantised": QUANTIZED,
    }
)
CARDS: Mapping[str, Card] = MappingProxyType(
    {card.name: card for group in GROUPS.values() for card in group}
)


def select(pattern: str = "*") -> list[Card]:
    """Cards whose name matches one of the globs (comma between them).

    Raises:
      ValueError: none does.
    """
    return [CARDS[name] for name in matching(pattern, tuple(CARDS), "card")]
