# SPDX-License-Identifier: Apache-2.0
"""The bits of each layer under a budget of bytes, from what each choice costs and harms."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Choice(NamedTuple):
    """A layer at some bits: its stored bytes, and the harm done by rounding it alone."""

    bytes: int
    harm: float


Choices = Mapping[str, Mapping[int, Choice]]


def assign(layers: Choices, budget: float) -> dict[str, int]:
    """Bits of each layer whose bytes sum to at most `budget`, with little harm in all.

    Greedy: every layer begins at its most bits; the move to fewer bits with the least harm for a
    byte saved is made, until the budget holds; then bytes that are left over go back to where they
    undo most harm. Harm is taken to add up. That is the best there is among as many bytes as the
    last move leaves, so within one layer's move of the best under the budget.

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
    while fits := [
        move
        for move in _moves(layers, chosen)
        if move.harm < 0 and 0 < move.bytes <= budget - total
    ]:
        best = min(fits, key=lambda move: move.harm)
        total += best.bytes
        chosen[best.path] = best.bits
    return chosen


class _Move(NamedTuple):
    """A layer to other bits: what this adds."""

    path: str
    bits: int
    bytes: int
    harm: float


def _moves(layers: Choices, chosen: Mapping[str, int]) -> Iterator[_Move]:
    for path, now in chosen.items():
        for bits, choice in layers[path].items():
            old = layers[path][now]
            yield _Move(path, bits, choice.bytes - old.bytes, choice.harm - old.harm)


def _useful(choices: Mapping[int, Choice]) -> dict[int, Choice]:
    """Of choices that take the same bytes, the one with the least harm."""
    best: dict[int, int] = {}
    for bits, choice in choices.items():
        if choice.bytes not in best or choice.harm < choices[best[choice.bytes]].harm:
            best[choice.bytes] = bits
    return {bits: choices[bits] for bits in best.values()}
