# SPDX-License-Identifier: Apache-2.0
"""Embedding and FactorizedEmbedding: flax's and torch's numbers, tied output, bad tokens."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.train.state import merge, split

pytestmark = pytest.mark.fast
TOKENS = jnp.array([[0, 3, 3], [6, 1, 3]])


def made(**kwargs):
    return layers.Embedding(7, 4, rngs=nnx.Rngs(0), **kwargs)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_state_and_numbers_are_those_of_flax(dtype) -> None:
    ours, theirs = made(dtype=dtype), nnx.Embed(7, 4, dtype=dtype, rngs=nnx.Rngs(0))
    assert isinstance(ours, nnx.Embed)
    state = nnx.state(theirs)
    nnx.update(ours, state)
    assert nnx.to_flat_state(state)[0][0] == nnx.to_flat_state(nnx.state(ours))[0][0]
    np.testing.assert_array_equal(ours(TOKENS), theirs(TOKENS))
    x = jax.random.normal(jax.random.key(1), (2, 4))
    np.testing.assert_array_equal(ours.attend(x), theirs.attend(x))


def test_a_tied_output_adds_its_gradient_to_the_one_table() -> None:
    graphdef, params, rest = split(made())

    def loss(table, output):
        y = jnp.take(table, TOKENS, axis=0)
        return (jnp.einsum("...d,vd->...v", y, output) ** 3).sum()

    def tied(params):
        layer = merge(graphdef, params, rest)
        return (layer.attend(layer(TOKENS)) ** 3).sum()

    table = params["embedding"]
    expected = sum(jax.grad(loss, (0, 1))(table, table))
    np.testing.assert_allclose(jax.grad(tied)(params)["embedding"], expected, rtol=1e-5)


def test_a_frequent_token_has_a_gradient_summed_in_float32() -> None:
    """4,096 ones: bfloat16 sums would stop at 256."""
    graphdef, params, rest = split(made(dtype=jnp.bfloat16))

    def total(params):
        y = merge(graphdef, params, rest)(jnp.full((4096,), 2))
        return y.astype(jnp.float32).sum()

    assert float(jax.jit(jax.grad(total))(params)["embedding"][2, 0]) == 4096


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint32])
def test_tokens_of_any_integer_type(dtype) -> None:
    layer = layers.Embedding(300, 4, rngs=nnx.Rngs(0))
    tokens = np.array([0, 127], dtype)
    expected = layer.embedding[...][np.array([0, 127])]
    np.testing.assert_array_equal(layer(tokens), expected)
    np.testing.assert_array_equal(jax.jit(layer)(tokens), expected)


def test_a_byte_vocabulary_takes_all_bytes() -> None:
    layer = layers.Embedding(256, 4, rngs=nnx.Rngs(0))
    y = jax.jit(layer)(np.arange(256, dtype=np.uint8))
    np.testing.assert_array_equal(y, layer.embedding[...])


EMBEDDINGS = {
    "Embedding": lambda: made(),
    "Factorized": lambda: layers.FactorizedEmbedding(7, 4, rank=2, rngs=nnx.Rngs(0)),
    "Hash": lambda: layers.HashEmbedding(7, 4, buckets=3, rngs=nnx.Rngs(0)),
    "QuotientRemainder": lambda: layers.QuotientRemainderEmbedding(
        7, 4, buckets=3, rngs=nnx.Rngs(0)
    ),
    "Int": lambda: layers.IntEmbedding(7, 4, rngs=nnx.Rngs(0)),
    "Int 4": lambda: layers.IntEmbedding(7, 4, bits=4, rngs=nnx.Rngs(0)),
}
every = pytest.mark.parametrize("make", [*map(cache, EMBEDDINGS.values())], ids=EMBEDDINGS)


@every
def test_a_token_outside_is_an_error_and_nan_inside_jit(make) -> None:
    layer, outside = make(), (-1, 7, 2**31 - 1, -(2**31))
    for token in outside:
        with pytest.raises(ValueError, match=rf"tokens from 0 to 6\. Got {token}\."):
            layer(np.array([1, token], np.int32))
    y = jax.jit(layer)(np.array([1, *outside], np.int32))
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1:]).all()


@every
def test_attend_and_merge_are_those_of_the_whole_table(make) -> None:
    layer = make()
    table = np.asarray(layer(np.arange(7)))
    np.testing.assert_allclose(layer.merge()(TOKENS), table[TOKENS], rtol=1e-6, atol=1e-6)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(layer.attend(x), x @ table.T, rtol=1e-5, atol=1e-6)


def test_factorized_attend_has_its_bias() -> None:
    layer = layers.FactorizedEmbedding(7, 4, rank=2, use_bias=True, rngs=nnx.Rngs(0))
    layer.project.bias.set_value(jnp.array([1.0, -2.0, 3.0, 0.5]))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    table = np.asarray(layer(jnp.arange(7)))
    np.testing.assert_allclose(layer.attend(x), x @ table.T, rtol=1e-5, atol=1e-5)


def test_factorizing_is_the_best_of_its_rank() -> None:
    """Its squared error is the sum of the squared singular values left out (Eckart & Young)."""
    embedding = layers.Embedding(9, 6, rngs=nnx.Rngs(0))
    table = np.asarray(embedding.embedding[...], np.float64)
    for rank in (2, 6):
        layer = layers.FactorizedEmbedding.from_embedding(embedding, rank=rank)
        error = ((np.asarray(layer.table()) - table) ** 2).sum()
        left_out = (np.linalg.svd(table, compute_uv=False)[rank:] ** 2).sum()
        np.testing.assert_allclose(error, left_out, rtol=1e-4, atol=1e-10)


VARIANCE = {
    "Embedding": lambda r: layers.Embedding(500, 64, rngs=r),
    "Factorized": lambda r: layers.FactorizedEmbedding(500, 64, rank=32, rngs=r),
    "Hash": lambda r: layers.HashEmbedding(500, 64, buckets=200, rngs=r),
    "times": lambda r: layers.QuotientRemainderEmbedding(500, 64, buckets=23, rngs=r),
    "plus": lambda r: layers.QuotientRemainderEmbedding(500, 64, buckets=23, combine="add", rngs=r),
    "side by side": lambda r: layers.QuotientRemainderEmbedding(
        500, 64, buckets=23, combine="concat", rngs=r
    ),
    "RandomProjection": lambda r: layers.RandomProjectionEmbedding(64, rngs=r),
    "Int": lambda r: layers.IntEmbedding(500, 64, rngs=r),
}


@pytest.mark.parametrize("make", VARIANCE.values(), ids=VARIANCE)
def test_vectors_have_variance_one_over_features(make) -> None:
    variance = jax.jit(lambda: make(nnx.Rngs(0))(jnp.arange(500)).var())()
    assert 0.8 < 64 * variance < 1.25


def test_bad_sizes_say_what_was_expected() -> None:
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match=r"num_embeddings of at least 1\. Got 0\."):
        layers.Embedding(0, 4, rngs=rngs)
    with pytest.raises(ValueError, match=r"features of at least 1\. Got -2\."):
        layers.HashEmbedding(5, -2, buckets=2, rngs=rngs)
    with pytest.raises(ValueError, match=r"rank of at most 4.*7 x 4\. Got 5\."):
        layers.FactorizedEmbedding(7, 4, rank=5, rngs=rngs)
    with pytest.raises(ValueError, match=r"rank of at least 1\. Got 0\."):
        layers.FactorizedEmbedding(7, 4, rank=0, rngs=rngs)
    with pytest.raises(TypeError, match=r"expects an nnx\.Embed\. Got Linear\."):
        layers.FactorizedEmbedding.from_embedding(nnx.Linear(2, 2, rngs=rngs), rank=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(\*batch, d\).*Got \(3,\) and \(7, 4\)"):
        made().attend(jnp.ones(3))
