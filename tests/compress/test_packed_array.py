# SPDX-License-Identifier: Apache-2.0
"""Arrays as bytes: written by hand, read back bit for bit, and what is damaged."""

import struct

import ml_dtypes
import numpy as np
import pytest

from efficient_layers.compress.code_planes import put_together, row_bytes, taken_apart
from efficient_layers.compress.packed_array import pack_array, unpack_array
from efficient_layers.ops.pack import pack, pack_indices

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(40, 30)).astype(np.float32)
SPARSE = np.where(np.abs(WEIGHTS) < 1.28, 0, WEIGHTS).astype(np.float32)  # 80 % zeros
CODES = np.clip(np.round(WEIGHTS * 2), -7, 7).astype(np.int8)
SPARSE_CODES = np.where(SPARSE == 0, 0, CODES).astype(np.int8)

DTYPES = (
    *(np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
    *(np.complex64, np.complex128, np.bool_, ml_dtypes.int4),
    *(np.int8, np.uint8, np.int32, np.uint32, np.int64),
)


def there_and_back(array: np.ndarray, row: int | None = None) -> tuple[str, int]:
    """The encoding, and bytes it takes."""
    packed = pack_array(array, row=row)
    again = unpack_array(packed.encoding, packed.data, array.shape, array.dtype)
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()
    return packed.encoding, len(packed.data)


def read(encoding: str, data: bytes, count: int, dtype) -> list:
    return unpack_array(encoding, data, (count,), np.dtype(dtype)).tolist()


def test_huffman_bit_by_bit():
    array = np.repeat(np.arange(4, dtype=np.int8), [16, 8, 4, 4])
    table = [4, 4, 0, 0b1111_0000, 0x12, 0x33]  # 4 values, a span of 4 from 0 on, lengths 1 2 3 3
    codes = [0, 0, 0b10101010, 0b10101010, 0b11011011, 0b0110_1111, 0b11111111]
    packed = pack_array(array)
    assert packed.encoding == "huffman"
    assert packed.data == bytes(table + codes)
    assert packed.entropy == 1.75
    # Two values far from each other are listed: -100 and 100, a bit each.
    assert read("huffman", bytes([2, 0, 156, 100, 0x11, 0b0110_0000]), 3, np.int8) == [
        -100,
        100,
        100,
    ]


def test_gaps_bit_by_bit():
    """Zeros but for 1.5 after two of them and -2 after 297 more, which is 255 and 42."""
    array = np.zeros(600, np.float32)
    array[2], array[300] = 1.5, -2
    zero, others = struct.pack("<f", 0), struct.pack("<2f", 1.5, -2)
    raw = zero + bytes([3, 0, 3, 2, 255, 42]) + others
    assert pack_array(array)[:2] == ("gaps+raw", raw)
    there_and_back(array)
    gaps = [3, 0, 2, 42, 255, 0x22, 0x10, 0b10_0_11_000]  # 2, 42 and 255 in codes 10, 11 and 0
    coded = zero + bytes([3, 1, len(gaps), *gaps]) + others
    assert read("gaps+raw", coded, 600, np.float32) == array.tolist()


def test_mask_and_planes_bit_by_bit():
    mask = struct.pack("<h", 0) + bytes([0b0100_0001, 0b1000_0000]) + struct.pack("<3h", 5, -1, 7)
    assert read("mask+raw", mask, 9, np.int16) == [0, 5, 0, 0, 0, 0, 0, -1, 7]
    # 0x0102 and 0x0103: the low bytes raw, the high ones a single value, which takes no bits.
    planes = bytes([0, 2, 2, 3, 1, 3, 1, 0, 1])
    assert read("planes", planes, 2, np.int16) == [0x0102, 0x0103]


def test_codes_of_four_bits_are_those_of_ops_pack():
    data = bytes([2, 0, 3, 15, 0x11, 0b0110_0000])  # 3, 15, 15, 3 in codes 0 and 1
    got = read("bits4+huffman", data, 2, np.uint8)
    assert got == np.asarray(pack(np.array([3, -1, -1, 3], np.int8), 4)).tolist()


def test_planes_of_codes_bit_by_bit():
    codes = np.array([[0b10110, 0b00001, 0b11111]], np.uint8)  # the lower four of each, the fifth
    assert put_together(codes, 5).tolist() == [[0b0001_0110, 0b0000_1111, 0b101]]
    assert put_together(codes & 7, 3).tolist() == [[0b11_01_10, 0b101]]
    assert (row_bytes(3, 5), row_bytes(9, 3)) == (3, 3 + 2)
    for bits in range(1, 8):
        codes = RNG.integers(0, 2**bits, (4, 11)).astype(np.uint8)
        rows = put_together(codes, bits)
        assert rows.shape == (4, row_bytes(11, bits))
        np.testing.assert_array_equal(taken_apart(rows, bits, 11), codes)
        np.testing.assert_array_equal(np.asarray(pack_indices(codes, bits)), rows)
    with pytest.raises(ValueError, match="does not fit 3 bits"):
        put_together(codes | 8, 3)
    with pytest.raises(ValueError, match="1 to 7 bits"):
        row_bytes(3, 8)


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
def test_codes_in_planes_are_taken_apart(bits):
    codes = np.clip(np.round(WEIGHTS * 2 ** (bits - 3)), 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    rows = put_together((codes + 2 ** (bits - 1)).astype(np.uint8), bits)
    name, size = there_and_back(rows, row=30)
    assert name == f"bits{bits}of30+huffman"
    assert size < there_and_back(rows)[1]
    rows[3, -1] |= 0x80  # a bit behind the last code: bytes alone say that
    assert not there_and_back(rows, row=30)[0].startswith(f"bits{bits}of")


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (7,), (30, 11)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape(dtype, shape):
    there_and_back(np.asarray(RNG.normal(size=shape) * 3).astype(dtype))
    there_and_back(np.zeros(shape, dtype))
    there_and_back(np.ones(shape, dtype))


def test_bits_that_compare_equal_or_unequal_to_themselves():
    special = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, 1e-45], np.float32)
    special.view(np.uint32)[3] |= 77  # another NaN
    there_and_back(RNG.choice(special, 500))
    there_and_back(np.where(RNG.random(500) < 0.9, np.float32(0), RNG.choice(special, 500)))
    there_and_back(np.asfortranarray(WEIGHTS)[::2, ::3])


@pytest.mark.parametrize(
    ("array", "encoding", "bits"),  # bits a weight, or two of 2 bits; tables left out
    [
        (SPARSE, "gaps+planes", 0.72 + 0.2 * 32),
        (CODES, "huffman", 3.1),
        (SPARSE_CODES, "gaps+huffman", 0.75 + 0.2 * 2.6),
        (np.asarray(pack(SPARSE_CODES, 4)), "bits4+gaps+huffman", 0.75 + 0.2 * 2.6),
        (np.asarray(pack((SPARSE > 0).astype(np.int8) - (SPARSE < 0), 2)), "bits4+huffman", 2.4),
        (RNG.normal(size=8).astype(np.float32)[RNG.integers(0, 8, 3000)], "huffman", 3),
        (WEIGHTS.astype(ml_dtypes.bfloat16).astype(np.float32), "planes", 11),
        (WEIGHTS.astype(np.float16).astype(np.float32), "planes", 14.5),
        (WEIGHTS, "planes", 28),
        (RNG.integers(0, 256, 3000).astype(np.uint8), "raw", 8),
    ],
)
def test_the_smallest_is_chosen(array, encoding, bits):
    name, size = there_and_back(array)
    weights = array.size * (2 if encoding.startswith("bits4") else 1)
    assert name == encoding
    assert size < weights * bits / 8 + 140
    assert size <= array.nbytes


def test_zeros_that_are_not_the_most_frequent_value():
    """A pruned weight of asymmetric codes is its zero point."""
    array = np.where(SPARSE == 0, np.int8(-13), CODES + 100).astype(np.int8)
    assert there_and_back(array)[0] == "gaps+huffman"


EXAMPLES = [
    WEIGHTS[:9],
    SPARSE[:9],
    CODES,
    SPARSE_CODES,
    np.asarray(pack(SPARSE_CODES, 4)),
    np.where(RNG.random(64) < 0.5, 0, RNG.normal(size=64)).astype(np.float32),
    np.zeros(100, np.float32),
]


@pytest.mark.parametrize("array", EXAMPLES)
def test_damage_gives_an_error_or_an_array_and_nothing_else(array):
    """Checksums are the file's; here no byte may lead to another error, or out of bounds."""
    name, data, _ = pack_array(array)
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"\w"):
            unpack_array(name, data[:size], array.shape, array.dtype)
    with pytest.raises(ValueError, match=r"\w"):
        unpack_array(name, data + b"\0", array.shape, array.dtype)
    for _ in range(300):
        wrong = bytearray(data)
        for place in RNG.integers(0, min(len(data), 60), 2):
            wrong[place] ^= int(RNG.integers(1, 256))
        try:
            got = unpack_array(name, bytes(wrong), array.shape, array.dtype)
        except ValueError:
            continue
        assert (got.shape, got.dtype) == (array.shape, array.dtype)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("pickle", b"\0" * 4),
        ("", b"\0" * 4),
        ("mask", b"\0" * 4),
        ("mask+mask+raw", b"\0" * 4),
        ("bits4", b"\0" * 4),
        ("bits0+raw", b"\0" * 4),
        ("bits9+raw", b"\0" * 4),
        ("bits5of0+raw", b"\0" * 4),
        ("bits5of999999999999999999+raw", b"\0" * 4),
        ("bits4+raw", b"\x10" * 8),  # a code of five bits
        ("huffman", bytes([0, 0])),  # a table of nothing
        ("huffman", b"\xff" * 20),  # numbers without an end
        ("huffman", bytes([2, 200, 1, 100, *[255] * 25, 0x11, 0])),  # values beyond int8
        ("gaps+raw", bytes([0, 2, 0, 2, 2, 1, 7, 7])),
    ],
)
def test_what_is_no_encoding(encoding, data):
    with pytest.raises(ValueError, match=r"\w"):
        unpack_array(encoding, data, (4,), np.dtype(np.int8))
    with pytest.raises(ValueError, match=r"0 bytes are no float32\[4\]|8 bytes are needed"):
        unpack_array("bits4+raw", b"", (4,), np.dtype(np.float32))
