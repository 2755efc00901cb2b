# SPDX-License-Identifier: Apache-2.0
"""ConvNeXtBlock: stochastic depth, layer scale, errors (numbers: the battery, timm)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers

pytestmark = pytest.mark.fast


def test_drop_path_leaves_whole_examples_as_they_were():
    block = layers.ConvNeXtBlock(4, kernel_size=3, layer_scale=1.0, drop_path=0.5, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (16, 3, 3, 4))
    moved = np.asarray(block(x, rngs=nnx.Rngs(dropout=1)) - x)
    block.eval()
    branch = np.asarray(block(x) - x)
    kept = np.abs(moved).max(axis=(1, 2, 3)) > 0
    assert 0 < kept.sum() < 16
    np.testing.assert_allclose(moved[kept], 2 * branch[kept], rtol=1e-4, atol=1e-5)


def test_layer_scale_starts_near_the_identity():
    x = jax.random.normal(jax.random.key(0), (1, 3, 3, 4))
    block = layers.ConvNeXtBlock(4, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(block(x), x, atol=1e-5)
    assert layers.ConvNeXtBlock(4, layer_scale=None, rngs=nnx.Rngs(0)).gamma is None
    out: dict[str, jax.Array] = {}
    block(x, out=out)
    assert {k: v.shape[-1] for k, v in out.items()} == {
        "depthwise": 4,
        "norm": 4,
        "expand": 16,
        "project": 4,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expand_ratio": 0.1}, "Got 0.1 x 4"),
        ({"kernel_size": 4}, "kernel_size=4"),
        ({"drop_path": 1.5}, "1.5"),
    ],
)
def test_settings_that_do_not_fit_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        layers.ConvNeXtBlock(4, **options, rngs=nnx.Rngs(0))


def test_an_input_of_another_shape_is_an_error():
    block = layers.ConvNeXtBlock(4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"Got \(1, 4, 4, 5\)"):
        block(jnp.ones((1, 4, 4, 5)))
