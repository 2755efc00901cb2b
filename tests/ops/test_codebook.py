# SPDX-License-Identifier: Apache-2.0
"""Indices packed several a byte, and weights picked by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers.ops.codebook import picked
from efficient_layers.ops.pack import pack_indices, packed_size, unpack_indices

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("size", [1, 7, 16])
def test_packed_indices_come_back(bits, size):
    indices = np.random.default_rng(bits).integers(2**bits, size=(3, size)).astype(np.uint8)
    packed = pack_indices(jnp.asarray(indices), bits)
    assert packed.shape == (3, packed_size(size, bits))
    np.testing.assert_array_equal(unpack_indices(packed, bits, size), indices)


def test_bytes():
    assert [packed_size(64, bits) for bits in range(1, 9)] == [8 * bits for bits in range(1, 9)]
    assert packed_size(3, 5) == 2 + 1  # a plane of four bits, one of one
    # 5 = 0b00101, 18 = 0b10010: the lower four bits (5, 2), then the fifth (0, 1).
    packed = pack_indices(jnp.array([5, 18], jnp.uint8), 5)
    np.testing.assert_array_equal(packed, [5 | 2 << 4, 2])


def test_bad_sizes():
    with pytest.raises(ValueError, match=r"1 to 8 bits\. Got 9"):
        packed_size(4, 9)
    with pytest.raises(ValueError, match=r"3 bytes for 8 indices of 3 bits\. Got 4"):
        unpack_indices(jnp.zeros((4,), jnp.uint8), 3, 8)


@pytest.mark.parametrize("zero", [False, True])
def test_weights_and_the_gradient_of_centroids_are_those_of_loops(zero):
    draw = np.random.default_rng(0)
    codes = draw.integers(4, size=(5, 6)).astype(np.uint8)
    books = draw.normal(size=(2, 4 - zero)).astype(np.float32)
    outer = draw.normal(size=codes.shape).astype(np.float32)
    expected, gradient = np.zeros(codes.shape), np.zeros(books.shape)
    for i, c in np.ndindex(*codes.shape):
        group, code = c // 3, int(codes[i, c]) - zero
        if code >= 0:
            expected[i, c] = books[group, code]
            gradient[group, code] += outer[i, c]

    def weights(codebook):
        return picked(codebook, jnp.asarray(codes), groups=2, zero=zero)

    np.testing.assert_array_equal(
        weights(jnp.asarray(books.reshape(-1))), expected.astype(np.float32)
    )
    got = jax.grad(lambda b: (weights(b) * outer).sum())(jnp.asarray(books.reshape(-1)))
    np.testing.assert_allclose(got, gradient.reshape(-1), rtol=1e-5)
