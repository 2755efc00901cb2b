# SPDX-License-Identifier: Apache-2.0
"""SparseLinear: the mask, the straight-through gradient, SR-STE's decay, an honest count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers, train

pytestmark = pytest.mark.fast
X = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


def layer(**kwargs) -> layers.SparseLinear:
    return layers.SparseLinear(8, 3, **kwargs, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2), (4, 4), (3, 8)])
def test_exactly_n_of_m_are_kept_and_they_are_the_largest(n, m):
    made = layer(n=n, m=m)
    size = np.abs(np.asarray(made.kernel[...])).reshape(-1, m, 3)
    mask = np.asarray(made.mask()).reshape(-1, m, 3)
    assert (mask.sum(1) == n).all()
    kept = np.where(mask, size, np.inf).min(1)
    lost = np.where(mask, -np.inf, size).max(1)
    assert (kept > lost).all()


def test_ties_keep_the_first():
    made = layer()
    made.kernel.set_value(jnp.ones((8, 3)))
    assert np.asarray(made.mask())[:, 0].tolist() == [True, True, False, False] * 2


def gradient(made, weight=0.0):
    graphdef, params, rest = train.split(made)

    def loss(params):
        model, out = train.merge(graphdef, params, rest), {}
        return model(X, out=out).sum() + weight * out["masked"]

    return np.asarray(jax.grad(loss)(params)["kernel"])


def test_the_gradient_goes_straight_through_and_sr_ste_pulls_at_the_masked_ones():
    made = layer()
    through = np.repeat(X.sum(0)[:, None], 3, 1)  # what a dense layer gets
    np.testing.assert_allclose(gradient(made), through, rtol=1e-5)
    mask, kernel = np.asarray(made.mask()), np.asarray(made.kernel[...])
    expected = through + 0.5 * ~mask * kernel
    np.testing.assert_allclose(gradient(made, 0.5), expected, rtol=1e-4, atol=1e-6)
    made.eval()
    np.testing.assert_allclose(gradient(made), through * mask, rtol=1e-5, atol=1e-6)


def test_train_eval_and_merge_compute_the_same():
    made = layer()
    y = made(X)
    made.eval()
    np.testing.assert_array_equal(made(X), y)
    merged = made.merge()
    np.testing.assert_array_equal(merged.kernel[...] != 0, made.mask())
    np.testing.assert_allclose(merged(X), y, atol=1e-6)


def test_from_linear_keeps_the_dense_weights():
    dense = nnx.Linear(8, 3, rngs=nnx.Rngs(1))
    made = layers.SparseLinear.from_linear(dense, n=1, m=2)
    np.testing.assert_array_equal(made.kernel[...], dense.kernel[...])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"m to divide in_features=8. Got 3"):
        layer(m=3)
    with pytest.raises(ValueError, match=r"n from 1 to m=4. Got 5"):
        layer(n=5)
