# SPDX-License-Identifier: Apache-2.0
"""Hashes of tokens, and the embeddings made of them: spread, uniqueness, stability, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.ops.hashing import hash_words, hashed_buckets, ternary_code
from tests.layers.cases.composed_embeddings import words as expected_words

pytestmark = pytest.mark.fast


def test_buckets_are_filled_evenly_and_independently() -> None:
    picked = np.asarray(hashed_buckets(jnp.arange(64_000), 64, hashes=2, seed=0))
    for counts in (np.bincount(picked[:, 0]), np.bincount(picked[:, 0] ^ picked[:, 1])):
        chi_squared = ((counts - 1000) ** 2 / 1000).sum()
        assert chi_squared < 63 + 5 * np.sqrt(2 * 63)


def test_hashes_of_a_seed_never_change() -> None:
    """Stored models depend on them; the numbers are those of the cases' Python integers."""
    words = np.asarray(hash_words(jnp.array([0, 1, -1]), 2, seed=3))
    assert words.tolist() == [expected_words(t & 0xFFFFFFFF, 2, 3) for t in (0, 1, -1)]
    assert words.dtype == np.uint32


def test_codes_are_half_zeros_of_even_signs_and_uncorrelated() -> None:
    code = np.asarray(ternary_code(jnp.arange(4000), 40, seed=1), np.float64)
    assert set(np.unique(code)) == {-1, 0, 1}
    np.testing.assert_allclose((code == 0).mean(), 0.5, atol=0.01)
    np.testing.assert_allclose(code.mean(), 0, atol=0.01)
    between_entries = np.corrcoef(code.T) - np.eye(40)
    assert np.abs(between_entries).max() < 5 / np.sqrt(4000)
    between_tokens = np.corrcoef(code[:200]) - np.eye(200)
    assert np.abs(between_tokens).max() < 6 / np.sqrt(40)


@pytest.mark.parametrize("combine", ["mult", "add", "concat"])
def test_quotient_and_remainder_give_every_token_its_own_vector(combine) -> None:
    layer = layers.QuotientRemainderEmbedding(97, 4, buckets=10, combine=combine, rngs=nnx.Rngs(0))
    vectors = np.asarray(layer(jnp.arange(97)))
    assert len(np.unique(vectors, axis=0)) == 97


def test_the_last_row_of_quotients_may_hold_no_more_than_the_vocabulary() -> None:
    """97 of 10 x 10 pairs: 97, 98 and 99 are not tokens."""
    layer = layers.QuotientRemainderEmbedding(97, 4, buckets=10, rngs=nnx.Rngs(0))
    y = np.asarray(jax.jit(layer)(jnp.array([96, 97, 99])))
    assert np.isnan(y).all(axis=1).tolist() == [False, True, True]


def test_any_integer_has_a_random_projection() -> None:
    layer = layers.RandomProjectionEmbedding(8, code_size=64, rngs=nnx.Rngs(0))
    y = np.asarray(layer(jnp.array([0, -1, 2**31 - 1, -(2**31)])))
    assert np.isfinite(y).all()
    assert len(np.unique(y, axis=0)) == 4
    unsigned = np.array([2**32 - 1], np.uint32)  # the bits of -1
    np.testing.assert_allclose(layer(unsigned)[0], y[1], rtol=1e-5, atol=1e-6)


def test_bad_settings_say_what_was_expected() -> None:
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match=r"buckets of at least 1\. Got 0\."):
        layers.HashEmbedding(7, 4, buckets=0, rngs=rngs)
    with pytest.raises(ValueError, match=r"hashes of at least 1\. Got 0\."):
        layers.HashEmbedding(7, 4, buckets=2, hashes=0, rngs=rngs)
    with pytest.raises(ValueError, match=r"buckets from 1 to num_embeddings=7\. Got 8\."):
        layers.QuotientRemainderEmbedding(7, 4, buckets=8, rngs=rngs)
    with pytest.raises(ValueError, match=r"one of \('mult', 'add', 'concat'\)\. Got 'times'\."):
        layers.QuotientRemainderEmbedding(7, 4, buckets=3, combine="times", rngs=rngs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"even features to put side by side\. Got 5\."):
        layers.QuotientRemainderEmbedding(7, 5, buckets=3, combine="concat", rngs=rngs)
    with pytest.raises(ValueError, match=r"code_size of at least 1\. Got 0\."):
        layers.RandomProjectionEmbedding(4, code_size=0, rngs=rngs)
    with pytest.raises(TypeError, match=r"integer.*bfloat16"):
        layers.RandomProjectionEmbedding(4, rngs=rngs)(jnp.ones(3, jnp.bfloat16))
