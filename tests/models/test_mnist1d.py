# SPDX-License-Identifier: Apache-2.0
"""The published sizes of MNIST-1D's models, and inputs that do not fit."""

import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import efficient_layers as el

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("mnist1d_linear", 410),
        ("mnist1d_mlp", 15210),
        ("mnist1d_cnn", 5210),
        ("mnist1d_gru", 5134),
    ],
)
def test_published_integers(name, params):
    model = nnx.eval_shape(lambda: el.models.create(name, rngs=nnx.Rngs(0)))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == params


def test_bad_input():
    model = nnx.eval_shape(lambda: el.models.create("mnist1d_cnn", rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"shape \(batch, 40, 1\). Got \(2, 41, 1\). Pass length"):
        model(jnp.zeros((2, 41, 1)))
    with pytest.raises(ValueError, match=r"no variant 'cmn'.* 'cnn'"):
        el.models.create("mnist1d", variant="cmn", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="length >= 8"):
        el.models.create("mnist1d", length=4, rngs=nnx.Rngs(0))
