# SPDX-License-Identifier: Apache-2.0
"""Codes of a few bits out of the bytes that `ops/pack.py` laid them into, and back, in NumPy.

A row of n codes of b bits is a plane of 4, of 2 and of 1 bits for each of these in b, one after
the other, each filled up to whole bytes; a plane's first code is in the lowest bits of its first
byte. So 4, 2 or 1 bits are one plane, and of 5 bits the lower four of all codes come first. Here
codes are numbers from 0 on: -1 in 4 bits is 15.
"""

import numpy as np


def row_bytes(size: int, bits: int) -> int:
    """Bytes of a row of `size` codes.

    >>> row_bytes(3, 4), row_bytes(3, 5)
    (2, 3)
    """
    return sum(-(-size * width // 8) for width in _widths(bits))


def taken_apart(rows: np.ndarray, bits: int, size: int) -> np.ndarray:
    """(rows, bytes) uint8 -> (rows, size) uint8."""
    planes, start = [], 0
    for width in _widths(bits):
        end = start + -(-size * width // 8)
        plane = np.unpackbits(rows[:, start:end], axis=1, count=size * width, bitorder="little")
        planes.append(plane.reshape(len(rows), size, width))
        start = end
    return np.packbits(np.concatenate(planes, axis=2), axis=2, bitorder="little")[..., 0]


def put_together(codes: np.ndarray, bits: int) -> np.ndarray:
    """(rows, size) uint8 -> (rows, bytes) uint8, the bits behind the last code 0.

    Raises:
      ValueError: a code of more bits.
    """
    if (codes >> bits).any():
        raise ValueError(f"A code does not fit {bits} bits.")
    whole = np.unpackbits(codes[..., None], axis=2, count=bits, bitorder="little")
    planes, start = [], 0
    for width in _widths(bits):
        plane = whole[..., start : start + width].reshape(len(codes), -1)
        planes.append(np.packbits(plane, axis=1, bitorder="little"))
        start += width
    return np.concatenate(planes, axis=1)


def _widths(bits: int) -> list[int]:
    if not 1 <= bits <= 7:
        raise ValueError(f"Codes in planes have 1 to 7 bits. Got {bits}.")
    return [width for width in (4, 2, 1) if bits & width]
