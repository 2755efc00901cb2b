# SPDX-License-Identifier: Apache-2.0
"""Which indices of which axes belong together: a union-find over single channels.

An *atom* is one index of one axis of one stored array. A value inside a program has an *entry* for
each axis: an array with the atom of every index; `FIXED`, where nothing may be removed (batch,
space, a size in somebody's code); `ANY`, where all indices hold the same and any size will do
(a broadcast); or a `Part`, one of the axes into which a reshape split an axis.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

FROZEN = 0  # the atom that stays: whatever is united with it is never removed
FIXED = None
ANY = "any"

Entry = Any  # np.ndarray | Part | FIXED | ANY


class Ties:
    """Atoms and which of them are removed together.

    Some choices are free (whole groups of a convolution, or a channel of each): `decisions` has
    those made. Handed to the walk of a smaller model, whose sizes might suggest others, they hold.
    """

    def __init__(self, decisions: Sequence[int] = ()) -> None:
        self._parent = np.zeros(1, np.int64)
        self._given = list(decisions)
        self.decisions: list[int] = []

    def decide(self, suggested: int) -> int:
        """A free choice: as decided before, else as suggested."""
        self.decisions.append(self._given.pop(0) if self._given else suggested)
        return self.decisions[-1]

    def new(self, count: int) -> np.ndarray:
        """`count` atoms tied to nothing."""
        start = len(self._parent)
        atoms = np.arange(start, start + count)
        self._parent = np.concatenate([self._parent, atoms])
        return atoms

    def roots(self, atoms: np.ndarray) -> np.ndarray:
        """One number for all atoms that are tied; `FROZEN` for those that stay."""
        roots = self._parent[atoms]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                self._parent[atoms] = roots
                return roots
            roots = above

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        """Ties a[i] to b[i]; the shapes broadcast."""
        a, b = np.broadcast_arrays(self.roots(a), self.roots(b))
        differ = a != b
        if not differ.any():
            return
        parent = self._parent
        for x, y in np.unique(np.stack([a[differ], b[differ]], 1), axis=0).tolist():
            while parent[x] != x:
                x = int(parent[x])
            while parent[y] != y:
                y = int(parent[y])
            parent[max(x, y)] = min(x, y)

    def freeze(self, entry: Entry) -> None:
        """Nothing of this axis is removed."""
        entry = self.settled(entry)
        if isinstance(entry, Part):
            entry.split.exclude(entry.axis)
        elif isinstance(entry, np.ndarray):
            self.unite(entry, np.array(FROZEN))

    def fixed(self, entry: Entry) -> Entry:
        """`freeze`, and what the entry is then."""
        self.freeze(entry)
        return FIXED

    def line(self, entry: Entry) -> Entry:
        """A part as an array, if it is or can be the one that loses indices, or else `FIXED`."""
        entry = self.settled(entry)
        if isinstance(entry, Part):
            entry.split.choose(entry.split.candidates[0])
        return self.settled(entry)

    def settled(self, entry: Entry) -> Entry:
        """A part of a split that is decided becomes an array or `FIXED`."""
        if not isinstance(entry, Part):
            return entry
        candidates = entry.split.candidates
        if entry.axis not in candidates:
            return FIXED
        return entry.split.line(entry.axis) if len(candidates) == 1 else entry

    def tie(self, a: Entry, b: Entry) -> Entry:
        """The entry of a result whose index i comes from index i of both."""
        a, b = self.settled(a), self.settled(b)
        if a is ANY or b is ANY:
            return b if a is ANY else a
        if a is FIXED or b is FIXED:
            self.freeze(a)
            self.freeze(b)
            return FIXED
        if isinstance(a, Part) and isinstance(b, Part) and self._join(a, b):
            return self.settled(a)
        if isinstance(a, Part) or isinstance(b, Part):
            # Axes outside are removed rather than axes inside: heads, not features of a head.
            return self.tie(*(self.line(entry) for entry in (a, b)))
        self.unite(a, b)
        return a

    def _join(self, a: "Part", b: "Part") -> bool:
        """Ties two splits of one kind as wholes."""
        if a.split is b.split:
            return a.axis == b.axis
        if a.axis != b.axis or a.split.atoms.shape != b.split.atoms.shape:
            return False
        self.unite(a.split.atoms, b.split.atoms)
        for axis in range(a.split.atoms.ndim):
            if axis not in a.split.candidates or axis not in b.split.candidates:
                a.split.exclude(axis)
                b.split.exclude(axis)
        b.split.follow(a.split)
        return True


class Split:
    """An axis reshaped into several, of which one can lose indices, the others then cannot.

    `atoms` has their shape. An axis that is excluded ties the atoms along it: what is removed of
    another axis is removed at every index of this one.
    """

    def __init__(self, ties: Ties, atoms: np.ndarray) -> None:
        self._ties, self.atoms = ties, atoms
        roots = ties.roots(atoms)
        varies = [(roots != roots.take([0], axis)).any() for axis in range(atoms.ndim)]
        self._candidates = [axis for axis in range(atoms.ndim) if varies[axis]]
        self._leader: Split | None = None
        if not self._candidates:
            ties.freeze(atoms)

    @property
    def candidates(self) -> list[int]:
        """The axes that may still be the one."""
        return self._candidates if self._leader is None else self._leader.candidates

    def follow(self, other: "Split") -> None:
        """Whatever is decided for `other` holds here; their atoms are tied."""
        self._leader = other

    def exclude(self, axis: int) -> None:
        """No index of this axis is removed."""
        if self._leader is not None:
            self._leader.exclude(axis)
        elif axis in self._candidates:
            self._ties.unite(self.atoms, self.atoms.take([0], axis))
            self._candidates.remove(axis)
            if not self._candidates:
                self._ties.freeze(self.atoms)

    def choose(self, axis: int) -> None:
        """Indices of this axis are removed, of no other."""
        for other in range(self.atoms.ndim):
            if other != axis:
                self.exclude(other)

    def line(self, axis: int) -> np.ndarray:
        """The atoms along an axis, where all others are excluded."""
        return self.atoms[tuple(slice(None) if a == axis else 0 for a in range(self.atoms.ndim))]


class Part(NamedTuple):
    """An axis of a split."""

    split: Split
    axis: int


def reshape(
    ties: Ties, entries: list[Entry], old: tuple[int, ...], new: tuple[int, ...]
) -> list[Entry]:
    """The entries of a value of shape `old` after it took the shape `new`."""
    if 0 in old:
        for entry in entries:
            ties.freeze(entry)
        return [FIXED] * len(new)
    result: list[Entry] = [ANY] * len(new)
    for before, after in _blocks(old, new):
        if len(before) == len(after) == 1:
            result[after[0]] = entries[before[0]]
            continue
        whole = _merged(ties, [entries[a] for a in before], tuple(old[a] for a in before))
        if isinstance(whole, np.ndarray) and len(after) > 1:
            split = Split(ties, whole.reshape([new[a] for a in after]))
            for axis, place in enumerate(after):
                result[place] = ties.settled(Part(split, axis))
        else:
            for place in after:
                result[place] = whole
    return result


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Axes of `old` that became axes of `new`, as few at a time as possible; without sizes of 1."""
    befores, afters = ([a for a, size in enumerate(shape) if size > 1] for shape in (old, new))
    blocks: list[tuple[list[int], list[int]]] = []
    while befores:
        before, after = [befores.pop(0)], [afters.pop(0)]
        have, want = old[before[0]], new[after[0]]
        while have != want:
            if have < want:
                before.append(befores.pop(0))
                have *= old[before[-1]]
            else:
                after.append(afters.pop(0))
                want *= new[after[-1]]
        blocks.append((before, after))
    return blocks


def _merged(ties: Ties, entries: list[Entry], sizes: tuple[int, ...]) -> Entry:
    """The entry of several axes flattened into one."""
    entries = _whole_split(ties, [ties.settled(entry) for entry in entries])
    named = [k for k, entry in enumerate(entries) if isinstance(entry, np.ndarray | Part)]
    if not named:
        return ANY if all(entry is ANY for entry in entries) else FIXED
    if isinstance(entries[named[0]], Part):
        order = [entries[k].axis for k in named]
        atoms = entries[named[0]].split.atoms.transpose(order)
    else:
        for k in named[:-1]:
            ties.freeze(entries[k])
        named = named[-1:]
        atoms = entries[named[0]]
    shape = [size if k in named else 1 for k, size in enumerate(sizes)]
    return np.broadcast_to(atoms.reshape(shape), sizes).reshape(-1)


def _whole_split(ties: Ties, entries: list[Entry]) -> list[Entry]:
    """Entries of which either all that are named are the parts of one split, or none is a part."""
    parts = [entry for entry in entries if isinstance(entry, Part)]
    if not parts:
        return entries
    split, order = parts[0].split, [part.axis for part in parts]
    alone = not any(isinstance(entry, np.ndarray) for entry in entries)
    same = all(part.split is split for part in parts)
    if alone and same and sorted(order) == list(range(split.atoms.ndim)):
        if order != sorted(order):  # a shuffle of channels: what is removed, is so in every group
            largest = max(split.candidates, key=lambda axis: split.atoms.shape[axis])
            split.choose(ties.decide(largest))
        else:
            return entries
    for part in parts:
        if isinstance(ties.settled(part), Part):
            part.split.choose(part.split.candidates[0])
    if alone and same and sorted(order) == list(range(split.atoms.ndim)):
        return entries
    return [ties.settled(entry) for entry in entries]
