# SPDX-License-Identifier: Apache-2.0
"""What Linen code expects of the twins; that they compute the same is checked by the battery."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers import linen
from tests.layers.case import registered

pytestmark = pytest.mark.fast


def test_every_registered_layer_has_a_twin_and_nothing_else_has() -> None:
    assert set(registered()) <= set(dir(linen))
    with pytest.raises(AttributeError, match=r"no layer 'make_divisible'"):
        _ = linen.make_divisible


def test_the_module_is_short() -> None:
    assert len(inspect.getsource(linen).splitlines()) < 60


def test_twins_nest_in_linen_modules_and_move_running_statistics() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            x = linen.Conv(3, 4, (3, 3), name="conv")(x)
            return linen.BatchNorm(4, name="norm")(x, train=train)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 3)), jnp.float32)
    variables = Net().init(jax.random.key(0), x, train=False)
    assert variables["params"]["conv"]["kernel"].shape == (3, 3, 3, 4)
    y, moved = Net().apply(variables, x, train=True, mutable=["batch_stats"])
    assert not np.allclose(moved["batch_stats"]["norm"]["var"], 1.0)
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0.0, atol=1e-5)
    still = Net().apply(variables, x, train=False)
    np.testing.assert_array_equal(still, Net().apply(variables, x, train=False))


def test_gradients_flow_to_linen_parameters() -> None:
    layer = linen.Conv(3, 4, (1, 1))
    x = jnp.ones((1, 2, 2, 3))
    variables = layer.init(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda v: layer.apply(v, x).sum()))(variables)
    np.testing.assert_allclose(gradient["params"]["kernel"], np.full((1, 1, 3, 4), 4.0))


def test_stochastic_layers_draw_from_the_dropout_stream() -> None:
    layer = linen.DropPath(0.5)
    x = jnp.ones((64, 2))
    y = layer.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(layer.apply({}, x, train=False), x)
