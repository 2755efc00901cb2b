# SPDX-License-Identifier: Apache-2.0
"""The view is a copy in eval mode: whoever handed the model in finds it as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers.measure.view import call, pure, view

pytestmark = pytest.mark.fast
KEY = jax.dtypes.prng_key


class Net(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(self.norm(x)))


def bits(model):
    _, state = nnx.split(model)
    leaves = jax.tree.leaves(state)
    plain = [jax.random.key_data(a) if jnp.issubdtype(a.dtype, KEY) else a for a in leaves]
    return [np.asarray(a).tobytes() for a in plain]


@pytest.mark.parametrize("training", [True, False])
def test_the_view_is_in_eval_mode_and_the_model_as_it_was(training):
    model = Net(rngs=nnx.Rngs(0))
    model.train() if training else model.eval()
    before = bits(model)
    seen = view(model)
    seen(jnp.ones((2, 3)))
    seen.head.kernel[...] = jnp.zeros((3, 2))
    assert seen.drop.deterministic
    assert seen.norm.use_running_average
    assert model.drop.deterministic is not training
    assert model.norm.use_running_average is not training
    assert bits(model) == before


def test_a_view_of_a_view_of_shapes_alone():
    model = nnx.eval_shape(lambda: Net(rngs=nnx.Rngs(0)))
    seen = view(view(model))
    assert seen.head.kernel.get_value().shape == (3, 2)
    assert not model.drop.deterministic


def test_tuple_dict_and_array_inputs():
    def fn(a, b=10):
        return a + b

    assert call(fn, 1) == 11
    assert call(fn, (1, 2)) == 3
    assert call(fn, {"a": 1, "b": 5}) == 6


def test_pure_keeps_flags_static_and_weights_as_arguments():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    class Flagged(nnx.Module):
        def __init__(self):
            self.inner = model

        def __call__(self, x, double=False):
            return self.inner(x) * 2 if double else self.inner(x)

    x = np.ones((1, 3), np.float32)
    function = pure(Flagged(), (x, True))
    assert len(function.arrays) == 1
    jitted = jax.jit(function.apply)
    zero = jax.tree.map(jnp.zeros_like, function.state)
    np.testing.assert_allclose(jitted(function.state, function.arrays), 2 * model(x), rtol=1e-6)
    np.testing.assert_array_equal(jitted(zero, function.arrays), np.zeros((1, 2)))
