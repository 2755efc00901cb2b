# SPDX-License-Identifier: Apache-2.0
"""The survey's plain CNN: the notebook's parameter counts at all seven widths, and its parts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.models.menghani_cnn import max_pool_2x2

pytestmark = pytest.mark.fast

# Stored cell outputs of demo.ipynb: width -> (trainable, total with running statistics).
PUBLISHED = {
    0.05: (14549, 14713),
    0.1: (25840, 26044),
    0.25: (98250, 98570),
    0.5: (349546, 350058),
    0.75: (764170, 764874),
    1.0: (1342122, 1343018),
    1.4: (2605450, 2606654),
}


def create(**fields):
    return el.models.create("menghani_cnn", rngs=nnx.Rngs(0), **fields)


def count(model, filter_):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, filter_)))


@pytest.mark.parametrize("width", PUBLISHED)
def test_parameters(width):
    model = nnx.eval_shape(lambda: create(width=width))
    assert (count(model, nnx.Param), count(model, ...)) == PUBLISHED[width]


@pytest.fixture(scope="module")
def small():
    return create(width=0.05, image_size=8)


def test_intermediates_and_features(small):
    model = nnx.view(small, deterministic=True, use_running_average=True)
    out = {}
    x = jnp.ones((2, 8, 8, 3))
    logits = model(x, out=out)
    assert list(out) == [*(f"convs/{i}" for i in range(6)), "features", "logits"]
    assert logits.shape == (2, 10)
    headless = create(width=0.05, image_size=8, num_classes=0)
    headless.eval()
    assert headless(x).shape == out["features"].shape == (2, 26)


def test_dropout_needs_rngs_in_train_mode(small):
    model = nnx.clone(small)
    model.train()
    with pytest.raises(ValueError, match=r"dropout_rate=0\.15 in train mode needs a key"):
        model(jnp.ones((2, 8, 8, 3)))
    assert model(jnp.ones((2, 8, 8, 3)), rngs=nnx.Rngs(dropout=0)).shape == (2, 10)


def test_wrong_image_size(small):
    with pytest.raises(ValueError, match=r"8x8. Got shape \(2, 16, 16, 3\)"):
        small(jnp.ones((2, 16, 16, 3)))


def test_max_pool_against_loops():
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
    expected = np.zeros((2, 2, 2, 3), np.float32)
    for i in range(2):
        for j in range(2):
            expected[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2))
    np.testing.assert_array_equal(max_pool_2x2(jnp.asarray(x)), expected)


def test_glorot_uniform_limits(small):
    kernel = np.asarray(create(image_size=8).dense.kernel[...])
    limit = math.sqrt(6 / sum(kernel.shape))
    assert np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / math.sqrt(3), rel=0.03)
