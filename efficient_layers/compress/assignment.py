# SPDX-License-Identifier: Apache-2.0
"""The bits of each layer under a budget of bytes, from what each choice costs and harms."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np


class Choice(NamedTuple):
    """A layer at some bits: its stored bytes, and the harm done by rounding it alone."""

    bytes: int
    harm: float


Choices = Mapping[str, Mapping[int, Choice]]


def assign(layers: Choices, budget: float) -> dict[str, int]:
    """Bits of each layer whose bytes sum to at most `budget`, with little harm in all.

    Greedy: every layer begins at its most bytes; the move to fewer with the least harm for a byte
    saved is made, until the budget holds. Then changes of one layer, or of two at once, that fit
    and undo harm are made, the best first, while there are any. Harm is taken to add up. Not worse
    than the best assignment of a budget that is one layer's move smaller.

    Raises:
      ValueError: the fewest bits of all layers are above the budget.
    """
    layers = {path: _useful(choices) for path, choices in layers.items()}
    chosen = {path: max(c, key=lambda bits: c[bits].bytes) for path, c in layers.items()}
    total = sum(layers[path][bits].bytes for path, bits in chosen.items())
    least = sum(min(c.bytes for c in choices.values()) for choices in layers.values())
    if least > budget:
        raise ValueError(f"{least:,} bytes are the fewest there are. Got a budget of {budget:,}.")
    while total > budget:
        moves = (move for move in _moves(layers, chosen) if move.bytes < 0)
        best = min(moves, key=lambda move: move.harm / -move.bytes)
        total += best.bytes
        chosen[best.path] = best.bits
    while better := _exchange(list(_moves(layers, chosen)), budget - total):
        total += sum(move.bytes for move in better)
        chosen |= {move.path: move.bits for move in better}
    return chosen


def _exchange(moves: list["_Move"], room: float) -> list["_Move"]:
    """The change of one or two layers that undoes most harm within `room` bytes, if any does."""
    if not moves:
        return []
    sizes = np.array([move.bytes for move in moves])
    harms = np.array([move.harm for move in moves])
    _, layer = np.unique([move.path for move in moves], return_inverse=True)
    fits = (sizes[:, None] + sizes <= room) & (layer[:, None] != layer)
    np.fill_diagonal(fits, sizes <= room)  # a move by itself
    both = harms[:, None] + harms
    np.fill_diagonal(both, harms)
    both[~fits] = np.inf
    first, second = np.unravel_index(both.argmin(), both.shape)
    if not both[first, second] < -_LEAST * np.abs(harms).max():
        return []
    return [moves[i] for i in {int(first), int(second)}]


_LEAST = 1e-9  # of the largest change of harm: less is rounding


class _Move(NamedTuple):
    """A layer to other bits: what this adds."""

    path: str
    bits: int
    bytes: int
    harm: float


def _moves(layers: Choices, chosen: Mapping[str, int]) -> Iterator[_Move]:
    for path, now in chosen.items():
        for bits, choice in layers[path].items():
            if bits == now:
                continue
            old = layers[path][now]
            yield _Move(path, bits, choice.bytes - old.bytes, choice.harm - old.harm)


def _useful(choices: Mapping[int, Choice]) -> dict[int, Choice]:
    """Of choices that take the same bytes, the one with the least harm."""
    best: dict[int, int] = {}
    for bits, choice in choices.items():
        if choice.bytes not in best or choice.harm < choices[best[choice.bytes]].harm:
            best[choice.bytes] = bits
    return {bits: choices[bits] for bits in best.values()}
