# SPDX-License-Identifier: Apache-2.0
"""HashedLinear: a fixed, even hash; gradients that sum over a bucket; the nearest kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers, train
from efficient_layers.ops.hashing import hashed_places
from tests.layers.cases.hashed_linear import place

pytestmark = pytest.mark.fast


def test_the_gradient_of_a_bucket_is_the_signed_sum_over_its_entries():
    layer = layers.HashedLinear(6, 5, buckets=4, use_bias=False, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    graphdef, params, rest = train.split(layer)
    got = jax.grad(lambda p: (train.merge(graphdef, p, rest)(x) ** 2).sum())(params)["weight"]
    dense = 2 * x.T @ np.asarray(layer(x))
    expected = np.zeros(4)
    for i, o in np.ndindex(6, 5):
        bucket, sign = place(i, o, 4, 0)
        expected[bucket] += sign * dense[i, o]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 123])
def test_buckets_and_signs_are_even_and_independent(seed):
    """Pearson's chi-squared on 65,536 entries: 199 degrees of freedom, beyond 300 with p < 1e-5."""
    index, sign = map(np.asarray, hashed_places((128, 512), 100, seed=seed))
    counts = np.bincount((2 * index + (sign > 0)).ravel(), minlength=200)
    mean = index.size / 200
    assert ((counts - mean) ** 2 / mean).sum() < 300
    # Neighbours in a row or column share a bucket as often as chance has it (1 %).
    for shared in (index[1:] == index[:-1], index[:, 1:] == index[:, :-1]):
        assert abs(shared.mean() - 0.01) < 0.002


def test_seeds_differ():
    one, _ = hashed_places((16, 16), 64, seed=0)
    other, _ = hashed_places((16, 16), 64, seed=1)
    assert np.mean(np.asarray(one) == np.asarray(other)) < 0.1


def test_outputs_keep_the_inputs_variance():
    layer = layers.HashedLinear(256, 256, buckets=4096, rngs=nnx.Rngs(0))
    y = layer(jax.random.normal(jax.random.key(0), (64, 256)))
    assert 0.8 < float(jnp.var(y)) < 1.2


def test_from_linear_is_the_mean_of_every_bucket_and_recovers_a_hashed_kernel():
    layer = layers.HashedLinear(6, 5, buckets=9, seed=3, rngs=nnx.Rngs(0))
    again = layers.HashedLinear.from_linear(layer.merge(), buckets=9, seed=3)
    used = np.unique(np.asarray(hashed_places((6, 5), 9, seed=3)[0]))
    np.testing.assert_allclose(again.weight[...][used], layer.weight[...][used], atol=1e-6)
    dense = nnx.Linear(6, 5, rngs=nnx.Rngs(1))
    nearest = layers.HashedLinear.from_linear(dense, buckets=4).merge().kernel[...]
    places = [place(i, o, 4, 0) for i, o in np.ndindex(6, 5)]
    design = np.zeros((30, 4))
    for row, (bucket, sign) in enumerate(places):
        design[row, bucket] = sign
    weight = np.linalg.lstsq(design, np.asarray(dense.kernel[...]).ravel(), rcond=None)[0]
    np.testing.assert_allclose(np.asarray(nearest).ravel(), design @ weight, atol=1e-6)


def test_bad_buckets_are_named():
    with pytest.raises(ValueError, match=r"buckets from 1 to 20, .* 4 x 5 kernel. Got 21"):
        layers.HashedLinear(4, 5, buckets=21, rngs=nnx.Rngs(0))
