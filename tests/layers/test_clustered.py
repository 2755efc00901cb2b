# SPDX-License-Identifier: Apache-2.0
"""Clustered layers: k-means of a weight, zeros, bytes, params, training of centroids, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers, measure, train
from efficient_layers.ops.kmeans import kmeans, nearest
from tests.layers.numpy_clusters import weights

pytestmark = pytest.mark.fast
DENSE = nnx.Linear(20, 12, rngs=nnx.Rngs(0))


def test_by_hand() -> None:
    """Two bits: -4, the mean of 1 and 1.5, 4, 9."""
    dense = nnx.Linear(5, 1, rngs=nnx.Rngs(0))
    dense.kernel.set_value(jnp.array([[1.0], [4.0], [-4.0], [9.0], [1.5]]))
    layer = layers.ClusteredLinear.from_linear(dense, bits=2)
    np.testing.assert_array_equal(layer.codebook[...], [-4.0, 1.25, 4.0, 9.0])
    np.testing.assert_array_equal(layer.codes[...].ravel(), [1, 2, 0, 3, 1])
    np.testing.assert_array_equal(layer.merge().kernel[...].ravel(), [1.25, 4.0, -4.0, 9.0, 1.25])


@pytest.mark.parametrize("groups", [1, 3])
def test_each_group_of_channels_has_its_own_centroids(groups) -> None:
    layer = layers.ClusteredLinear.from_linear(DENSE, bits=3, groups=groups)
    kernel = np.asarray(DENSE.kernel[...], np.float64)
    for part, book in zip(
        np.split(kernel, groups, axis=1), layer.codebook[...].reshape(groups, -1), strict=True
    ):
        expected = kmeans(part, np.linspace(part.min(), part.max(), 8))
        np.testing.assert_allclose(book, expected, rtol=1e-6)
    kernel_now = np.asarray(layer.merge().kernel[...])
    np.testing.assert_allclose(kernel_now, weights(layer), rtol=1e-6)
    if groups == 1:
        np.testing.assert_allclose(kernel_now, expected[nearest(kernel, expected)], rtol=1e-6)


def test_zeros_stay_zero_in_training() -> None:
    kernel = np.array(DENSE.kernel[...])
    kernel[np.abs(kernel) < 0.2] = 0
    dense = nnx.Linear(20, 12, rngs=nnx.Rngs(0))
    dense.kernel.set_value(jnp.asarray(kernel))
    layer = layers.ClusteredLinear.from_linear(dense, bits=2, keep_zeros=True)
    assert layer.codebook.shape == (3,)
    np.testing.assert_array_equal(np.asarray(layer.merge().kernel[...]) == 0, kernel == 0)
    layer.codebook.set_value(layer.codebook[...] + 1)  # any step
    np.testing.assert_array_equal(np.asarray(layer.merge().kernel[...]) == 0, kernel == 0)
    all_zero = nnx.Linear(4, 4, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
    layer = layers.ClusteredLinear.from_linear(all_zero, keep_zeros=True)
    np.testing.assert_array_equal(layer.merge().kernel[...], np.zeros((4, 4)))


def test_the_gradient_of_a_centroid_is_the_sum_over_its_weights() -> None:
    layer = layers.ClusteredLinear.from_linear(DENSE, bits=2)
    x = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    graphdef, params, rest = train.split(layer)
    assert set(params) == {"bias", "codebook"}
    got = jax.grad(lambda p: (train.merge(graphdef, p, rest)(x) ** 2).sum())(params)["codebook"]
    dense = 2 * x.T @ np.asarray(layer(x))
    codes = np.asarray(layer.codes[...])
    expected = np.zeros(4)
    for i, o in np.ndindex(20, 12):
        expected[codes[i, o // 4] >> 2 * (o % 4) & 3] += dense[i, o]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_bytes_are_those_of_the_bits_and_params_count_codes_and_codebook(bits) -> None:
    embedding = layers.Embedding(50, 16, rngs=nnx.Rngs(0))
    layer = layers.ClusteredEmbedding.from_embedding(embedding, bits=bits)
    cost = measure.cost(layer, jnp.zeros((1, 3), jnp.int32))
    assert cost.weight_bytes == 50 * 2 * bits + 4 * 2**bits
    assert cost.params == 50 * 16 + 2**bits


def test_a_convolution_keeps_its_settings() -> None:
    conv = layers.DepthwiseConv(4, 3, strides=2, multiplier=2, rngs=nnx.Rngs(0))
    layer = layers.ClusteredConv.from_conv(conv, bits=8)  # more centroids than weights: exact
    x = jax.random.normal(jax.random.key(0), (2, 9, 9, 4))
    np.testing.assert_allclose(layer(x), conv(x), atol=1e-6)


def test_a_token_outside_of_the_table_is_not_a_number_in_a_transform() -> None:
    layer = layers.ClusteredEmbedding(5, 4, rngs=nnx.Rngs(0))
    y = jax.jit(layer)(jnp.array([0, 5, -1]))
    np.testing.assert_array_equal(np.isnan(y), [[False] * 4, [True] * 4, [True] * 4])
    np.testing.assert_array_equal(layer.table(), layer(jnp.arange(5)))


def test_types_are_kept() -> None:
    dense = nnx.Linear(8, 4, param_dtype=jnp.bfloat16, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer = layers.ClusteredLinear.from_linear(dense)
    assert layer.codebook[...].dtype == jnp.bfloat16
    assert layer(jnp.ones((1, 8), jnp.bfloat16)).dtype == jnp.float32


def test_bad_settings_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"bits from 2 to 8\. Got 1\."):
        layers.ClusteredLinear(4, 4, bits=1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"groups that divide its 4 channels\. Got 3\."):
        layers.ClusteredConv(4, 4, (3, 3), groups=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"start to be one of .* Got 'forgy'"):
        layers.ClusteredLinear.from_linear(DENSE, start="forgy")  # type: ignore[arg-type]
    broken = nnx.Linear(2, 2, kernel_init=nnx.initializers.constant(np.nan), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"finite weights"):
        layers.ClusteredLinear.from_linear(broken)
    with pytest.raises(TypeError, match=r"from_conv expects an nnx\.Conv\. Got Linear\."):
        layers.ClusteredConv.from_conv(DENSE)  # type: ignore[arg-type]
