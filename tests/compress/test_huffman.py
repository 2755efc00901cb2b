# SPDX-License-Identifier: Apache-2.0
"""Huffman codes against heapq's, against all codes there are, and bit by bit."""

import heapq
import itertools

import numpy as np
import pytest

from efficient_layers.compress import huffman

RNG = np.random.default_rng(0)


def heap_lengths(counts: list[int]) -> list[int]:
    """Huffman's own construction: the two lightest trees become one until one is left."""
    heap = [(n, i, [i]) for i, n in enumerate(counts)]
    heapq.heapify(heap)
    lengths = [0] * len(counts)
    while len(heap) > 1:
        (n, i, left), (m, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (n + m, i, left + right))
    return lengths


def there_and_back(symbols: np.ndarray, count: int) -> bytes:
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=count))
    data = huffman.encode(symbols, lengths)
    np.testing.assert_array_equal(huffman.decode(data, len(symbols), lengths), symbols)
    return data


def test_bit_by_bit():
    lengths = huffman.code_lengths([4, 2, 1, 1])
    assert lengths.tolist() == [1, 2, 3, 3]
    assert huffman.canonical_codes(lengths).tolist() == [0b0, 0b10, 0b110, 0b111]
    data = huffman.encode(np.array([0, 3, 1, 0, 0, 2, 1, 0]), lengths)
    assert data == bytes([0b0_111_10_0_0, 0b110_10_0_00])
    assert huffman.decode(data, 8, lengths).tolist() == [0, 3, 1, 0, 0, 2, 1, 0]
    # In the order of (length, symbol), whatever the symbols' own order.
    assert huffman.canonical_codes([3, 1, 3, 2]).tolist() == [0b110, 0b0, 0b111, 0b10]


@pytest.mark.parametrize("count", [2, 3, 7, 50, 256])
def test_as_short_as_heapq_and_within_a_bit_of_the_entropy(count):
    for skew in (0, 1, 3):
        counts = 1 + (100 * RNG.random(count) ** (3 * skew)).astype(int)
        lengths = huffman.code_lengths(counts).astype(int)
        assert lengths @ counts == heap_lengths(counts.tolist()) @ counts
        mean = lengths @ counts / counts.sum()
        assert huffman.entropy(counts) <= mean + 1e-9 < huffman.entropy(counts) + 1


def test_no_code_of_few_bits_is_shorter():
    for n, limit in [(3, 2), (4, 2), (4, 3), (5, 3), (6, 3)]:
        for counts in ([1, 1, 2, 3, 5, 8][:n], [1] * n, [100, 1, 1, 50, 7, 2][:n]):
            codes = itertools.product(range(1, limit + 1), repeat=n)
            best = min(np.dot(c, counts) for c in codes if sum(2.0**-k for k in c) <= 1)
            lengths = huffman.code_lengths(counts, limit=limit)
            assert lengths.max() <= limit
            assert np.dot(lengths, counts) == best


def test_the_limit_holds_where_huffman_would_go_deeper():
    fibonacci = [1, 1]
    while len(fibonacci) < 30:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    assert max(heap_lengths(fibonacci)) == 29
    lengths = huffman.code_lengths(fibonacci).astype(int)
    assert lengths.max() == huffman.LIMIT
    assert lengths @ fibonacci < 1.001 * (heap_lengths(fibonacci) @ np.array(fibonacci))
    there_and_back(RNG.permutation(np.repeat(np.arange(20), fibonacci[:20])), 20)


def test_no_code_begins_another():
    lengths = huffman.code_lengths(RNG.integers(1, 500, 100))
    codes = huffman.canonical_codes(lengths)
    texts = sorted(f"{c:0{n}b}" for c, n in zip(codes, lengths, strict=True))
    assert not any(b.startswith(a) for a, b in itertools.pairwise(texts))
    assert sum(2.0**-n for n in lengths.tolist()) == 1


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 1000])
def test_random_constant_and_empty(size):
    there_and_back(RNG.permutation(np.arange(size) % 2), 1 + (size > 1))
    there_and_back(RNG.permutation(np.arange(size) % 9), min(size, 9))
    assert there_and_back(np.zeros(size, int), 1) == b""  # a single symbol takes no bits
    lengths = huffman.code_lengths([3, 1])
    assert huffman.encode(np.zeros(0, int), lengths) == b""
    assert huffman.decode(b"", 0, lengths).size == 0
    assert huffman.code_lengths(np.zeros(0)).size == 0


def test_codes_across_the_borders_of_what_is_done_at_a_time(monkeypatch):
    symbols = np.minimum(RNG.geometric(0.2, 3000) - 1, 40)
    symbols[:41] = np.arange(41)
    whole = there_and_back(symbols, 41)
    for at_a_time in (1, 2, 5, 64, len(whole)):
        monkeypatch.setattr(huffman, "_BYTES", at_a_time)
        monkeypatch.setattr(huffman, "_SYMBOLS", 3 * at_a_time)
        assert there_and_back(symbols, 41) == whole


def test_what_is_no_code_is_refused():
    with pytest.raises(ValueError, match="each >= 1"):
        huffman.code_lengths([3, 0])
    with pytest.raises(ValueError, match="5 symbols have no codes of at most 2 bits"):
        huffman.code_lengths([1] * 5, limit=2)
    with pytest.raises(ValueError, match="limit of 1 to 15"):
        huffman.code_lengths([1, 1], limit=16)
    for lengths in ([1, 1, 1], [1, 2], [0, 0], [1], [0, 1, 1]):
        with pytest.raises(ValueError, match="no complete code"):
            huffman.canonical_codes(lengths)
        with pytest.raises(ValueError, match="no complete code"):
            huffman.decode(b"\0", 4, lengths)


def test_bytes_that_are_no_such_codes_are_refused():
    lengths = np.array([1, 2, 2], np.uint8)
    data = huffman.encode(np.array([0, 1, 2, 0, 2]), lengths)
    assert data == bytes([0b0_10_11_0_11])
    for wrong, count in [(data, 4), (data, 6), (data + b"\0", 5), (b"", 5), (data[:0], 1)]:
        with pytest.raises(ValueError, match=f"hold no {count} codes"):
            huffman.decode(wrong, count, lengths)
    with pytest.raises(ValueError, match="hold no 2 codes"):  # padding that is not zero
        huffman.decode(bytes([0b0_10_00001]), 2, lengths)
    with pytest.raises(ValueError, match="take no bytes"):
        huffman.decode(b"\0", 5, np.array([0], np.uint8))
