# SPDX-License-Identifier: Apache-2.0
"""IntEmbedding: rounding of a table, bytes, equal params, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers, measure
from efficient_layers.ops.pack import unpack

pytestmark = pytest.mark.fast
EMBEDDING = layers.Embedding(50, 9, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (4, 7)])
def test_codes_are_the_nearest_and_use_the_whole_range(bits, most) -> None:
    layer = layers.IntEmbedding.from_embedding(EMBEDDING, bits=bits)
    table = np.asarray(EMBEDDING.embedding[...], np.float64)
    scale = np.abs(table).max(axis=1, keepdims=True) / most
    codes = np.asarray(layer.codes[...] if bits == 8 else unpack(layer.codes[...], 4, 9))
    assert (np.abs(codes - table / scale) < 0.5 + 1e-5).all()
    assert (np.abs(codes).max(axis=1) == most).all()
    error = np.abs(np.asarray(layer.table()) - table)
    assert (error <= 0.5001 * scale).all()


@pytest.mark.parametrize(("bits", "row"), [(8, 9 + 4), (4, 5 + 4)])
def test_params_are_those_of_the_floats_and_bytes_those_stored(bits, row) -> None:
    layer = layers.IntEmbedding.from_embedding(EMBEDDING, bits=bits)
    cost = measure.cost(layer, jnp.zeros((1, 3), jnp.int32))
    assert cost.params == measure.cost(EMBEDDING, jnp.zeros((1, 3), jnp.int32)).params
    assert cost.weight_bytes == 50 * row


def test_a_row_of_zeros_stays_zero() -> None:
    embedding = layers.Embedding(2, 4, embedding_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
    y = layers.IntEmbedding.from_embedding(embedding)(jnp.array([0, 1]))
    np.testing.assert_array_equal(y, np.zeros((2, 4)))


def test_types_of_the_embedding_are_kept() -> None:
    embedding = nnx.Embed(5, 4, dtype=jnp.float32, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    layer = layers.IntEmbedding.from_embedding(embedding)
    assert layer.scale[...].dtype == jnp.bfloat16
    assert layer(jnp.array([1])).dtype == jnp.float32
    np.testing.assert_allclose(
        layer.table(), embedding.embedding[...].astype(jnp.float32), atol=0.02
    )


def test_bad_settings_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"bits to be 4 or 8\. Got 3\."):
        layers.IntEmbedding(5, 4, bits=3, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"expects an nnx\.Embed\. Got Linear\."):
        layers.IntEmbedding.from_embedding(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))  # type: ignore[arg-type]
