# SPDX-License-Identifier: Apache-2.0
"""MixtureOfExperts: what is dropped, the balance loss, both dispatches, and a training run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from efficient_layers import layers, ops, train
from tests.layers.case import drawn

pytestmark = pytest.mark.fast
X = np.random.default_rng(0).normal(size=(2, 12, 4)).astype(np.float32)


def layer(**kwargs) -> layers.MixtureOfExperts:
    settings = {"experts": 3, **kwargs}
    return drawn(lambda: layers.MixtureOfExperts(4, 6, **settings, rngs=nnx.Rngs(0)))


def to_one_expert(made: layers.MixtureOfExperts) -> layers.MixtureOfExperts:
    """All tokens of positive features go to expert 1."""
    made.router.set_value(jnp.zeros((4, made.experts)).at[:, 1].set(9.0))
    return made


def test_the_first_tokens_get_the_slots():
    made = to_one_expert(layer(top_k=1, capacity_factor=1.0, act=jnp.tanh))  # never just zeros
    y = np.asarray(made(np.abs(X)))
    assert made.capacity(12) == 4
    assert (np.abs(y[:, :4]).max(-1) > 0).all()
    np.testing.assert_array_equal(y[:, 4:], 0)


@pytest.mark.slow
def test_first_choices_come_before_second_ones():
    """Tokens 0-5 want expert 0 then 1, tokens 6-11 expert 1 then 0; six slots each."""
    made = layer(experts=2, top_k=2, capacity_factor=0.5)
    x = np.zeros((1, 12, 4), np.float32)
    x[0, :6, 0] = x[0, 6:, 1] = 1
    made.router.set_value(3 * jnp.eye(4)[:, :2])
    out: dict = {}
    y = made(x, out=out)
    assert made.capacity(12) == 6
    assert float(out["dropped"]) == 0.5  # every second choice
    np.testing.assert_allclose(out["load"], [0.5, 0.5])
    gate = np.exp(3) / (np.exp(3) + 1)
    for token, expert in ((0, 0), (11, 1)):
        h = np.maximum(x[0, token] @ made.up[...][expert], 0) @ made.down[...][expert]
        np.testing.assert_allclose(y[0, token], gate * h, rtol=1e-5)


def test_balance_loss_and_load_of_known_routings():
    out: dict = {}
    made = layer(top_k=1)
    made.router.set_value(jnp.zeros((4, 3)))  # uniform probabilities; ties go to expert 0
    made(X, out=out)
    np.testing.assert_allclose(out["balance_loss"], 1, rtol=1e-6)
    np.testing.assert_allclose(out["load"], [1, 0, 0])
    to_one_expert(made)(10 * np.abs(X) + 1, out=out)
    np.testing.assert_allclose(out["balance_loss"], 3, rtol=1e-5)  # at most the experts
    np.testing.assert_allclose(out["dropped"], 1 - 5 / 12)  # ceil(1.25 x 12 / 3) slots


@pytest.mark.slow
def test_sequences_do_not_change_each_others_results():
    made = layer(capacity_factor=0.5)
    np.testing.assert_allclose(made(X)[1], made(X[1]), atol=1e-6)


def test_with_one_expert_it_is_a_two_layer_network():
    made = layer(experts=1, top_k=1, capacity_factor=1.0)
    dense = np.maximum(X @ made.up[...][0], 0) @ made.down[...][0]
    np.testing.assert_allclose(made(X), dense, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"top_k": 1, "capacity_factor": 0.5}, {"top_k": 3}])
def test_copied_rows_and_one_hot_products_agree(settings):
    graphdef, params, rest = train.split(layer(**settings))

    def loss(params, x):
        model, out = train.merge(graphdef, params, rest), {}
        y = model(x, out=out)
        return (y**2).sum() + out["balance_loss"], y

    def under(name):
        with ops.lowering(name):
            return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, X)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), under("cpu"), under("tpu")
    )


def test_the_balance_loss_spreads_the_load():
    made = layer(top_k=1)
    made.router.set_value(jnp.zeros((4, 3)).at[:, 1].set(0.5))
    graphdef, params, rest = train.split(made)
    x = np.abs(X)

    def objective(model, batch, rngs):
        out: dict = {}
        model(batch["x"], out=out)
        return out["balance_loss"], {"load": out["load"].max()}

    tx = optax.adam(0.3)
    state = train.TrainState.create(params, rest, tx)
    step = jax.jit(train.step(objective, tx, graphdef))
    loads = []
    for _ in range(60):
        state, metrics = step(state, {"x": x}, jax.random.key(0))
        loads.append(float(metrics["load"]))
    assert loads[0] == 1
    assert min(loads) < 0.7


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"top_k from 1 to 3. Got 4"):
        layer(top_k=4)
    with pytest.raises(ValueError, match=r"positive capacity_factor. Got 0"):
        layer(capacity_factor=0)
    with pytest.raises(ValueError, match=r"sizes of at least 1. .*experts=0"):
        layer(experts=0)
    with pytest.raises(ValueError, match=r"jitter in \[0, 1\). Got 1"):
        layer(jitter=1)
    with pytest.raises(ValueError, match=r"jitter=0.1 in train mode needs a key. Got rngs=None"):
        layer(jitter=0.1)(X)
    with pytest.raises(ValueError, match=r"shape \(\*batch, tokens, 4\). Got \(4,\)"):
        layer()(X[0, 0])
