# SPDX-License-Identifier: Apache-2.0
"""RepVGG: the merged model, and published sizes of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from tests.models.cases.repvgg import FIELDS

pytestmark = pytest.mark.fast

# Parameters of the merged models in millions: open-mmlab/mmpretrain, configs/repvgg/README.md.
DEPLOYED = {"repvgg_a0": "8.31", "repvgg_a1": "12.79", "repvgg_b3": "110.96"}


@pytest.mark.parametrize("name", DEPLOYED)
def test_merged_sizes(name):
    model = nnx.eval_shape(lambda: el.models.create(name, deploy=True, rngs=nnx.Rngs(0)))
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert f"{params / 1e6:.2f}" == DEPLOYED[name]


@pytest.mark.slow
def test_reparameterise_keeps_the_outputs():
    model = el.models.create("repvgg", rngs=nnx.Rngs(0), **FIELDS)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 16, 16, 3)), jnp.float32)
    model.train()
    model(x)  # moves the running statistics
    model.eval()
    merged = model.reparameterise()
    assert merged.config.deploy
    np.testing.assert_allclose(merged(x), model(x), atol=1e-5)
    kinds = {type(module) for _, module in nnx.iter_modules(merged)}
    assert el.layers.BatchNorm not in kinds
    assert model.blocks[0].conv is None
