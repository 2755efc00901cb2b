# SPDX-License-Identifier: Apache-2.0
"""One array as bytes: the smallest of a few encodings, none of which loses a bit.

An encoding's name says how to read it, from the left: `[bitsB+ | bitsBofN+][mask+ | gaps+]values`.

    bits4, bits2  every byte of a uint8 array is two codes of 4 bits or four of 2, the lowest first:
                  they are what follows.
    bits5of30     so are the rows of its last axis, each 30 codes of 5 bits (`code_planes.py`).
    mask          the most frequent value (a pruned array's 0); a bit for each place that has
                  another; the other values.
    gaps          the same with the number of places before each other value, Huffman-coded: Deep
                  Compression's relative index. 255 stands for 255 places and no value.
    raw           the values as they lie in memory, little-endian.
    huffman       the values that occur (a codebook), their code lengths, the codes.
    planes        the first bytes of all values, the second bytes, ..., each raw or Huffman-coded:
                  of floats, signs and exponents take 3 bits instead of 8, and the low bytes of
                  numbers that float16 or bfloat16 could hold take next to none.

Reference: Han et al., *Deep Compression* (arXiv 1510.00149), sections 2 to 4. Differs from the
paper: a gap that is too long adds no zero among the values; gaps go up to 255 for every layer, not
to 2^5 or 2^8; a bit mask takes their place where it is smaller.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from efficient_layers.compress import huffman
from efficient_layers.compress.code_planes import put_together, row_bytes, taken_apart

_WORDS = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
_ALPHABET = 1 << 12  # more different values have no common code
_FAR = 255


class Packed(NamedTuple):
    """`entropy`: bits a value (of packed codes: a code), each coded on its own."""

    encoding: str
    data: bytes
    entropy: float


def pack_array(array: np.ndarray, *, row: int | None = None) -> Packed:
    """The array in the fewest bytes.

    Args:
      row: of packed codes: how many the last axis holds.

    >>> packed = pack_array(np.array([0, 0, 0, 7, 0, 0, 0, 0], np.float32).repeat(9))
    >>> packed.encoding, len(packed.data)
    ('mask+huffman', 19)
    """
    words = _words(array)
    found = list(_encodings("", words))
    for prefix, codes in _codes(array, row):
        found += _encodings(f"{prefix}+", codes.reshape(-1).view(np.int8))
    return min(found, key=lambda packed: len(packed.data))


def unpack_array(
    encoding: str, data: bytes | memoryview, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """What `pack_array` was given. No more is allocated than that array takes, several times.

    Raises:
      ValueError: an encoding that is not known; bytes that are no such array.
    """
    steps, reader = encoding.split("+"), _Reader(data)
    if packed := re.fullmatch(r"bits(\d)(?:of(\d{1,18}))?", steps[0]):
        row = int(packed[2]) if packed[2] else None
        words = _read_codes(steps[1:], reader, int(packed[1]), row, shape)
    else:
        size = _word_size(dtype)
        count = int(np.prod(shape, dtype=np.int64)) * (dtype.itemsize // size)
        words = _read(steps, reader, count, _WORDS[size])
    reader.end()
    if words.nbytes != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise ValueError(f"{words.nbytes} bytes are no {dtype}{list(shape)}.")
    return words.view(dtype).reshape(shape)


def _word_size(dtype: np.dtype) -> int:
    return min(dtype.itemsize, 8)


def _words(array: np.ndarray) -> np.ndarray:
    """(n,) the bit patterns, as integers."""
    return np.array(array, order="C").reshape(-1).view(_WORDS[_word_size(array.dtype)])


def _codes(array: np.ndarray, row: int | None) -> Iterator[tuple[str, np.ndarray]]:
    """The ways to read a uint8 array as packed codes: the encoding's first part, (rows, codes)."""
    if array.dtype != np.uint8:
        return
    for bits in (4, 2):
        yield f"bits{bits}", taken_apart(array.reshape(-1, 1), bits, 8 // bits)
    for bits in (3, 5, 6, 7):
        if row and array.ndim and row_bytes(row, bits) == array.shape[-1]:
            rows = array.reshape(-1, array.shape[-1])
            codes = taken_apart(rows, bits, row)
            if np.array_equal(put_together(codes, bits), rows):  # no bits but those of codes
                yield f"bits{bits}of{row}", codes


def _read_codes(
    steps: list[str], reader: "_Reader", bits: int, row: int | None, shape: tuple[int, ...]
) -> np.ndarray:
    size = shape[-1] if row and shape else 1
    row = row or 8 // max(bits, 1)
    if row_bytes(row, bits) != size:
        raise ValueError(f"{row} codes of {bits} bits do not take {size} bytes.")
    count = int(np.prod(shape, dtype=np.int64)) // size * row
    codes = _read(steps, reader, count, np.int8).view(np.uint8).reshape(-1, row)
    return put_together(codes, bits).reshape(-1)


def _encodings(prefix: str, words: np.ndarray) -> Iterator[Packed]:
    """Of all values, and of those that are not the most frequent one with its places."""
    symbols, counts = np.unique(words, return_counts=True)
    bits = huffman.entropy(counts)
    name, data = _values(words)
    yield Packed(prefix + name, data, bits)
    if len(symbols) < 2 or counts.max() * 8 < len(words):
        return
    common = symbols[counts.argmax()]
    others = words != common
    name, data = _values(words[others])
    head = common.tobytes()
    yield Packed(f"{prefix}mask+{name}", head + np.packbits(others).tobytes() + data, bits)
    yield Packed(f"{prefix}gaps+{name}", head + _gaps(np.flatnonzero(others)) + data, bits)


def _values(words: np.ndarray) -> tuple[str, bytes]:
    """The name and the bytes of the smallest of raw, huffman and planes."""
    found = [("raw", words.tobytes())]
    if len(words) and (coded := _huffman(words)) is not None:
        found.append(("huffman", coded))
    if len(words) and words.dtype.itemsize > 1:
        found.append(("planes", _planes(words)))
    return min(found, key=lambda entry: len(entry[1]))


def _read(steps: list[str], reader: "_Reader", count: int, kind: type) -> np.ndarray:
    """The inverse of `_encodings` without its prefix."""
    if len(steps) == 2 and steps[0] in ("mask", "gaps"):
        common = reader.words(1, kind)
        read = _read_mask if steps[0] == "mask" else _read_gaps
        places = read(reader, count)
        words = np.repeat(common, count)
        words[places] = _read(steps[1:], reader, len(places), kind)
        return words
    known = {"raw": _Reader.words, "huffman": _read_huffman, "planes": _read_planes}
    if len(steps) != 1 or steps[0] not in known:
        raise ValueError(f"The encoding {'+'.join(steps)!r} is not known.")
    return known[steps[0]](reader, count, kind)


def _gaps(places: np.ndarray) -> bytes:
    gaps = np.diff(places, prepend=-1) - 1
    far = gaps // _FAR
    symbols = np.full(len(gaps) + int(far.sum()), _FAR, np.uint8)
    symbols[np.cumsum(far + 1) - 1] = gaps % _FAR
    return _number(len(symbols)) + _planes(symbols)


def _read_gaps(reader: "_Reader", count: int) -> np.ndarray:
    gaps = _read_planes(reader, reader.number(count), np.uint8).astype(np.int64)
    places = np.cumsum(gaps + (gaps != _FAR)) - 1
    if len(places) and places[-1] >= count:
        raise ValueError(f"A gap leads beyond the {count} places.")
    return places[gaps != _FAR]


def _read_mask(reader: "_Reader", count: int) -> np.ndarray:
    bits = np.frombuffer(reader.take(-(-count // 8)), np.uint8)
    return np.flatnonzero(np.unpackbits(bits, count=count))


def _planes(words: np.ndarray) -> bytes:
    """For each byte of a value, the lowest first: 1 if coded or 0, the size, those bytes."""
    pieces = []
    for plane in words.view(np.uint8).reshape(len(words), -1).T:
        coded = _huffman(plane)
        data = plane.tobytes() if coded is None else coded
        pieces += [bytes([coded is not None]), _number(len(data)), data]
    return b"".join(pieces)


def _read_planes(reader: "_Reader", count: int, kind: type) -> np.ndarray:
    size = np.dtype(kind).itemsize
    planes = np.empty((count, size), np.uint8)
    for place in range(size):
        coded = reader.number(1)
        part = _Reader(reader.take(reader.number()))
        planes[:, place] = (_read_huffman if coded else _Reader.words)(part, count, np.uint8)
        part.end()
    return planes.reshape(-1).view(kind)


def _huffman(words: np.ndarray) -> bytes | None:
    """Values, code lengths and codes; None where that is not shorter than the values are."""
    symbols, counts = np.unique(words, return_counts=True)
    if len(symbols) > _ALPHABET:
        return None
    lengths = huffman.code_lengths(counts)
    table = _symbols(symbols) + _nibbles(lengths)
    if len(table) + (counts @ lengths.astype(np.int64)) / 8 >= words.nbytes:
        return None
    return table + huffman.encode(np.searchsorted(symbols, words), lengths)


def _read_huffman(reader: "_Reader", count: int, kind: type) -> np.ndarray:
    symbols = _read_symbols(reader, kind)
    lengths = _read_nibbles(reader, len(symbols))
    return symbols[huffman.decode(reader.rest(), count, lengths)]


def _symbols(symbols: np.ndarray) -> bytes:
    """How many values; 0 and a list, or a span, its lowest value and a bit for each in it."""
    span = int(symbols[-1]) - int(symbols[0]) + 1
    listed = _number(len(symbols)) + _number(0) + symbols.tobytes()
    if span >= 1 << 16:
        return listed
    present = np.zeros(span, bool)
    present[symbols.astype(np.int64) - int(symbols[0])] = True
    ranged = _number(len(symbols)) + _number(span) + symbols[:1].tobytes()
    return min(listed, ranged + np.packbits(present).tobytes(), key=len)


def _read_symbols(reader: "_Reader", kind: type) -> np.ndarray:
    count, span = reader.number(_ALPHABET), reader.number(1 << 16)
    if not count:
        raise ValueError("A table of no values.")
    if not span:
        return reader.words(count, kind)
    lowest = int(reader.words(1, kind)[0])
    bits = np.frombuffer(reader.take(-(-span // 8)), np.uint8)
    places = np.flatnonzero(np.unpackbits(bits, count=span))
    if len(places) != count or lowest + span - 1 > np.iinfo(kind).max:
        raise ValueError(f"The table of {count} values is damaged.")
    return (places + lowest).astype(kind)


def _nibbles(lengths: np.ndarray) -> bytes:
    """Two code lengths a byte, the first in the high bits; none for a single value."""
    if len(lengths) == 1:
        return b""
    padded = np.pad(lengths, (0, len(lengths) % 2))
    return (padded[::2] << 4 | padded[1::2]).astype(np.uint8).tobytes()


def _read_nibbles(reader: "_Reader", count: int) -> np.ndarray:
    if count == 1:
        return np.zeros(1, np.uint8)
    pairs = np.frombuffer(reader.take(-(-count // 2)), np.uint8)
    return np.stack([pairs >> 4, pairs & 15], axis=1).reshape(-1)[:count]


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow (LEB128)."""
    pieces = []
    while value > 127:
        pieces.append(value & 127 | 128)
        value >>= 7
    return bytes([*pieces, value])


class _Reader:
    """Bytes from the front; none that are not there."""

    def __init__(self, data: bytes | memoryview):
        self._data = memoryview(data)

    def take(self, size: int) -> memoryview:
        if size > len(self._data):
            raise ValueError(f"{size} bytes are needed and {len(self._data)} are left.")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def rest(self) -> memoryview:
        return self.take(len(self._data))

    def end(self) -> None:
        if len(self._data):
            raise ValueError(f"{len(self._data)} bytes are left over.")

    def words(self, count: int, kind: type) -> np.ndarray:
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind).copy()

    def number(self, most: int = 1 << 62) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                break
        if byte > 127 or value > most:
            raise ValueError(f"A number of at most {most} is expected. Got {value} or more.")
        return value
