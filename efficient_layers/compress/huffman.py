# SPDX-License-Identifier: Apache-2.0
"""Canonical Huffman codes of integers: few bits for what occurs often, none lost.

Symbols are 0 ... n - 1 and occur `counts` times. The code lengths l have sum 2^-l = 1 (no code is
the beginning of another) and the least sum counts * l of all such codes of at most `limit` bits;
without a limit, entropy <= mean l < entropy + 1. Codes are canonical: in the order of (length,
symbol) each is the next number, so that the lengths alone say all. The first bit of a code is the
highest one, and the first of a byte.

Reference: Huffman, *A Method for the Construction of Minimum-Redundancy Codes* (1952); Larmore &
Hirschberg, *A Fast Algorithm for Optimal Length-Limited Huffman Codes* (1990), package-merge; Han
et al., *Deep Compression* (arXiv 1510.00149), section 4.
"""

import numpy as np

LIMIT = 15  # bits of the longest code: a length fits four bits, a table of all 2^15 the cache
_SYMBOLS = 1 << 20  # encoded at a time
_BYTES = 1 << 16  # decoded at a time


def code_lengths(counts: np.ndarray, *, limit: int = LIMIT) -> np.ndarray:
    """Bits of each symbol's code, by package-merge; a single symbol needs none.

    >>> code_lengths(np.array([5, 1, 1, 2]))
    array([1, 3, 3, 2], dtype=uint8)

    Raises:
      ValueError: a count below 1; more symbols than codes of `limit` bits; a limit outside 1 to 15.
    """
    counts = np.asarray(counts, np.int64)
    if not 1 <= limit <= LIMIT:
        raise ValueError(f"A Huffman code expects a limit of 1 to {LIMIT} bits. Got {limit}.")
    if counts.ndim != 1 or (counts < 1).any():
        raise ValueError("A Huffman code expects symbols that occur: a row of counts, each >= 1.")
    if len(counts) > 1 << limit:
        raise ValueError(f"{len(counts)} symbols have no codes of at most {limit} bits.")
    order = np.argsort(counts, kind="stable")
    leaves = counts[order]
    merged, levels = leaves, [np.ones(len(leaves), bool)]
    for _ in range(limit - 1):  # packages: neighbours of the level before, two by two
        packages = merged[: len(merged) // 2 * 2].reshape(-1, 2).sum(1)
        items = np.concatenate([leaves, packages])
        rank = np.argsort(items, kind="stable")
        merged = items[rank]
        levels.append(rank < len(leaves))
    lengths = np.zeros(len(leaves), np.uint8)
    taken = 2 * len(leaves) - 2
    for is_leaf in reversed(levels):  # the lightest items; of the packages, what they hold
        lightest = int(is_leaf[: max(taken, 0)].sum())
        lengths[:lightest] += 1
        taken = 2 * (taken - lightest)
    found = np.empty_like(lengths)
    found[order] = lengths
    return found


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """The code of each symbol as a number of `lengths` bits.

    >>> [f"{code:0{n}b}" for code, n in zip(canonical_codes([1, 3, 3, 2]), [1, 3, 3, 2])]
    ['0', '110', '111', '10']

    Raises:
      ValueError: lengths of no complete code: sum 2^-l is not 1.
    """
    order, shares, longest = _shares(lengths)
    starts = np.cumsum(shares) - shares
    codes = np.empty(len(order), np.int64)
    codes[order] = starts >> (longest - np.asarray(lengths, np.int64)[order])
    return codes


def encode(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
    """The codes of `symbols` one behind another; the last byte is filled with zero bits."""
    codes, lengths = canonical_codes(lengths), np.asarray(lengths, np.int64)
    pieces, left = [], np.empty(0, np.uint8)
    for start in range(0, len(symbols), _SYMBOLS):
        part = symbols[start : start + _SYMBOLS]
        bits = np.concatenate([left, _bits(codes[part], lengths[part])])
        whole = len(bits) // 8 * 8
        pieces.append(np.packbits(bits[:whole]).tobytes())
        left = bits[whole:]
    return b"".join([*pieces, np.packbits(left).tobytes()])


def decode(data: bytes | memoryview, count: int, lengths: np.ndarray) -> np.ndarray:
    """The `count` symbols that `encode` was given.

    What every bit would mean were it the first of a code is looked up in a table, for all bits at
    once; then one walk from code to code picks those that are.

    Raises:
      ValueError: lengths of no code; bytes that are no `count` codes, or that are more.
    """
    order, shares, longest = _shares(lengths)
    kind = np.uint16 if len(order) <= 1 << 16 else np.uint32
    found = np.zeros(count, kind)
    if not longest or not count:
        if len(data):
            raise ValueError(f"{count} codes of {longest} bits take no bytes. Got {len(data)}.")
        return found
    symbol_at = np.repeat(order, shares).astype(kind)
    length_at = np.asarray(lengths, np.uint8)[symbol_at]
    bits = np.frombuffer(data, np.uint8)
    done, place = 0, 0  # symbols, and the bit where the next one begins
    for first in range(0, len(bits), _BYTES):
        windows = _windows(bits, first, longest)
        starts, place = _walk(length_at[windows].tobytes(), place, count - done)
        found[done : done + len(starts)] = symbol_at[windows[starts]]
        done += len(starts)
        if done == count:
            place += 8 * first
            break
        place -= 8 * _BYTES
    if done < count or len(bits) != -(-place // 8) or _padding(bits, place):
        raise ValueError(f"{len(bits)} bytes hold no {count} codes, or more than that.")
    return found


def entropy(counts: np.ndarray) -> float:
    """-sum p log2 p: the fewest bits a symbol that any code of single symbols has on average.

    >>> entropy(np.array([2, 1, 1]))
    1.5
    """
    shares = np.asarray(counts, np.float64) / max(np.sum(counts), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _shares(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Symbols by (length, symbol), each one's share of all codes of the longest length, that."""
    lengths = np.asarray(lengths, np.int64)
    longest = int(lengths.max(initial=0))
    order = np.argsort(lengths, kind="stable")
    shares = np.int64(1) << (longest - lengths[order])
    if longest > LIMIT or (len(lengths) > 0 and shares.sum() != 1 << longest):
        raise ValueError("These lengths are of no complete code: the sum of 2^-length is not 1.")
    return order, shares, longest


def _bits(codes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(n,) codes -> all their bits, a byte each."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    bits = np.empty(int(ends[-1]), np.uint8)
    for place in range(int(lengths.max())):
        long = np.flatnonzero(lengths > place)
        bits[starts[long] + place] = (codes[long] >> (lengths[long] - 1 - place)) & 1
    return bits


def _windows(data: np.ndarray, first: int, width: int) -> np.ndarray:
    """uint16: the `width` bits from each bit of `_BYTES` bytes on, the first of them `first`."""
    part = data[first : first + _BYTES + 2]
    wide = np.zeros(min(_BYTES, len(data) - first) + 2, np.uint32)
    wide[: len(part)] = part
    three = (wide[:-2] << 16) | (wide[1:-1] << 8) | wide[2:]
    shifts = np.uint32(24 - width) - np.arange(8, dtype=np.uint32)
    return ((three[:, None] >> shifts) & np.uint32((1 << width) - 1)).astype(np.uint16).reshape(-1)


def _walk(steps: bytes, place: int, most: int) -> tuple[list[int], int]:
    """Where codes begin, at most `most`, from `place` on; where the next one would."""
    starts: list[int] = []
    add, end = starts.append, len(steps)
    while place < end:
        add(place)
        place += steps[place]
    if len(starts) > most:
        place = starts[most]
        del starts[most:]
    return starts, place


def _padding(bits: np.ndarray, place: int) -> bool:
    """Whether a bit from `place` on in the last byte is 1."""
    return place % 8 > 0 and bool(bits[-1] & ((1 << (8 - place % 8)) - 1))
