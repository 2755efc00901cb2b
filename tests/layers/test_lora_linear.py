# SPDX-License-Identifier: Apache-2.0
"""LoRALinear: exact at the start, only the correction is trained, exact after merging."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from efficient_layers import layers, measure, train

pytestmark = pytest.mark.fast


def adapted(**kwargs) -> tuple[nnx.Linear, layers.LoRALinear]:
    dense = nnx.Linear(6, 5, rngs=nnx.Rngs(0))
    dense.bias.set_value(jnp.arange(5.0))
    return dense, layers.LoRALinear.from_linear(dense, rank=2, rngs=nnx.Rngs(1), **kwargs)


X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def test_a_new_one_is_its_base_exactly():
    dense, layer = adapted()
    np.testing.assert_array_equal(layer(X), dense(X))
    np.testing.assert_array_equal(layer.merge().kernel[...], dense.kernel[...])


def test_training_moves_the_correction_alone():
    dense, layer = adapted(dropout_rate=0.1)
    graphdef, params, rest = train.split(layer)
    assert set(params) == {"lora_a", "lora_b"}
    assert set(rest) == {"kernel", "bias"}

    def objective(model, batch, rngs):
        return ((model(batch["x"], rngs=rngs) - 1) ** 2).mean(), {}

    tx = optax.sgd(0.1)
    state = train.TrainState.create(params, rest, tx)
    step = jax.jit(train.step(objective, tx, graphdef))
    for _ in range(5):
        state, _ = step(state, {"x": X}, jax.random.key(0))
    trained = train.merge(graphdef, state.params, state.rest)
    np.testing.assert_array_equal(trained.kernel[...], dense.kernel[...])
    np.testing.assert_array_equal(trained.bias[...], dense.bias[...])
    assert np.abs(trained.lora_b[...]).max() > 0.01
    trained.eval()
    np.testing.assert_allclose(trained.merge()(X), trained(X), atol=1e-6)


def test_the_frozen_weights_are_stored_but_not_parameters():
    _, layer = adapted()
    cost = measure.cost(layer, X)
    assert cost.params == 2 * (6 + 5)
    assert cost.weight_bytes == 4 * (2 * (6 + 5) + 6 * 5 + 5)


def test_dropout_is_on_the_corrections_input_alone():
    dense, layer = adapted(dropout_rate=0.5)
    layer.lora_b.set_value(jnp.ones((2, 5)))
    mean = np.mean([layer(X, rngs=jax.random.key(i)) for i in range(400)], axis=0)
    layer.eval()
    np.testing.assert_allclose(mean, layer(X), atol=0.25)
    assert not np.allclose(layer(X), dense(X))


def test_bad_arguments_are_named():
    _, layer = adapted(dropout_rate=0.5)
    with pytest.raises(ValueError, match=r"dropout_rate=0.5 in train mode needs a key"):
        layer(X)
    with pytest.raises(ValueError, match=r"rank from 1 to 3.* Got 0"):
        layers.LoRALinear(5, 3, rank=0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"dropout_rate in \[0, 1\). Got 1"):
        layers.LoRALinear(5, 3, rank=1, dropout_rate=1, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"expects an nnx.Linear"):
        layers.LoRALinear.from_linear(layer, rank=1, rngs=nnx.Rngs(0))
