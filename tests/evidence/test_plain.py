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
def make(request):
    fields = {"mobilenet_v2": {"variant": "digits", "width": 0.35, "in_channels": 3}}
    fields["menghani_cnn"] = {"width": 0.05, "image_size": 8}
    chosen = fields[request.param] | {"dropout_rate": 0}
    return lambda: el.models.create(request.param, rngs=nnx.Rngs(0), **chosen)


def kinds_of(make):
    """Of all modules; nothing is computed."""
    return [type(module) for _, module in nnx.iter_modules(nnx.eval_shape(make))]


def test_no_layer_of_ours_is_left(make):
    kinds, before = kinds_of(lambda: plain(make())), kinds_of(make)
    for kind in (el.layers.Conv, el.layers.BatchNorm, el.layers.ConvBNAct):
        assert kind not in kinds
    assert kinds.count(nnx.Conv) == before.count(el.layers.Conv) > 0
    assert kinds.count(nnx.BatchNorm) == before.count(el.layers.BatchNorm) > 0


@pytest.mark.slow
def test_same_numbers(make):
    """In train mode too; the running variance differs (ours is unbiased), so eval goes first."""
    ours, model = make(), plain(make())
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)
    for mode in ("eval", "train"):
        getattr(ours, mode)()
        getattr(model, mode)()
        np.testing.assert_allclose(jitted(ours, x), jitted(model, x), rtol=1e-3, atol=1e-4)


def jitted(model, x):
    graphdef, state = nnx.split(model)
    return jax.jit(lambda state, x: nnx.merge(graphdef, state, copy=True)(x))(state, x)
