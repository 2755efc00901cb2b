# SPDX-License-Identifier: Apache-2.0
"""Measures cards and writes their tables anew."""

from collections.abc import Callable
from pathlib import Path

from efficient_layers.evidence.cards.catalogue import GROUPS, select
from efficient_layers.evidence.cards.compare import compare
from efficient_layers.evidence.cards.page import record, render


def measure_all(globs: str, folder: Path, *, calls: int, say: Callable[..., None] = print) -> None:
    """Measures the cards that the globs match, and puts their rows into the folder of the cards.

    Raises:
      ValueError: there is no such folder, or no such card.
    """
    if not folder.is_dir():
        raise ValueError(f"--cards expects the folder of the cards, docs/layers. Got {folder}.")
    for card in select(globs):
        rows = compare(card, calls=calls)
        record(folder, card, rows)
        say(card.name, *(f"{row.label}: {row.forward_ratio:.2f}" for row in rows[1:]))
    for path in render(folder, GROUPS):
        say(f"wrote {path}")
