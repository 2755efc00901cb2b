# SPDX-License-Identifier: Apache-2.0
"""The plain model: flax's classes only, the same numbers, and flax's own convolutions inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.evidence.plain import plain

pytestmark = pytest.mark.fast


@pytest.fixture(params=["mobilenet_v2", "menghani_cnn"])
def pair(request):
    fields = {"mobilenet_v2": {"variant": "digits", "width": 0.35, "in_channels": 3}}
    fields["menghani_cnn"] = {"width": 0.05, "image_size": 8}
    chosen = fields[request.param] | {"dropout_rate": 0}
    return tuple(el.models.create(request.param, rngs=nnx.Rngs(0), **chosen) for _ in range(2))


def test_no_layer_of_ours_is_left(pair):
    ours, model = pair[0], plain(pair[1])
    kinds = [type(module) for _, module in nnx.iter_modules(model)]
    for kind in (el.layers.Conv, el.layers.BatchNorm, el.layers.ConvBNAct):
        assert kind not in kinds
    before = [type(module) for _, module in nnx.iter_modules(ours)]
    assert kinds.count(nnx.Conv) == before.count(el.layers.Conv) > 0
    assert kinds.count(nnx.BatchNorm) == before.count(el.layers.BatchNorm) > 0


@pytest.mark.slow
def test_same_numbers(pair):
    """In train mode too; the running variance differs (ours is unbiased), so eval goes first."""
    ours, model = pair[0], plain(pair[1])
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)
    for mode in ("eval", "train"):
        getattr(ours, mode)()
        getattr(model, mode)()
        np.testing.assert_allclose(jitted(ours, x), jitted(model, x), rtol=1e-3, atol=1e-4)


def jitted(model, x):
    graphdef, state = nnx.split(model)
    return jax.jit(lambda state, x: nnx.merge(graphdef, state, copy=True)(x))(state, x)
