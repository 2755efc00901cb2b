# SPDX-License-Identifier: Apache-2.0
"""The step against arithmetic done by hand in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from efficient_layers import train
from tests.train import tiny

pytestmark = pytest.mark.fast
KEY = jax.random.key(0)


def _softmax_regression_gradient(w, b, x, label):
    """Mean cross-entropy's gradient, one example at a time."""
    dw, db = np.zeros_like(w), np.zeros_like(b)
    for row, k in zip(x, label, strict=True):
        z = row @ w + b
        p = np.exp(z - z.max())
        p /= p.sum()
        p[k] -= 1
        dw += np.outer(row, p) / len(x)
        db += p / len(x)
    return dw, db


def test_one_sgd_step_equals_the_numpy_loop():
    head = nnx.Linear(4, 3, rngs=nnx.Rngs(0))

    def objective(model, batch, rngs):
        loss = optax.softmax_cross_entropy_with_integer_labels(model(batch["x"]), batch["label"])
        return loss.mean(), {}

    graphdef, params, rest = train.split(head)
    tx = optax.sgd(0.5)
    state = train.TrainState.create(params, rest, tx)
    batch = tiny.batch()
    new, metrics = jax.jit(train.step(objective, tx, graphdef))(state, batch, KEY)
    w, b = np.asarray(params["kernel"], np.float64), np.asarray(params["bias"], np.float64)
    dw, db = _softmax_regression_gradient(w, b, batch["x"], batch["label"])
    np.testing.assert_allclose(new.params["kernel"], w - 0.5 * dw, atol=1e-6)
    np.testing.assert_allclose(new.params["bias"], b - 0.5 * db, atol=1e-6)
    norm = np.sqrt((dw**2).sum() + (db**2).sum())
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["update_norm"], 0.5 * norm, rtol=1e-5)
    # sorted paths: bias, kernel
    np.testing.assert_allclose(
        metrics["grad_norms"], [np.linalg.norm(db), np.linalg.norm(dw)], rtol=1e-5
    )
    assert int(new.step) == 1


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_equals_the_large_batch(parts):
    batch = tiny.batch(8)
    whole_state, whole, _ = tiny.start(tiny.Net(norm=False, rngs=nnx.Rngs(0)))
    part_state, part, _ = tiny.start(tiny.Net(norm=False, rngs=nnx.Rngs(0)), accumulate=parts)
    expected, metrics = whole(whole_state, batch, KEY)
    got, part_metrics = part(part_state, batch, KEY)
    for path, value in expected.params.items():
        np.testing.assert_allclose(got.params[path], value, atol=1e-7)
    np.testing.assert_allclose(part_metrics["loss"], metrics["loss"], rtol=1e-6)


def test_accumulation_normalises_each_part_by_itself():
    """The stated exception: BatchNorm sees examples i, i + 2, ... one part at a time."""
    net = tiny.Net(rngs=nnx.Rngs(0))
    kernel = np.asarray(net.hidden.kernel[...])
    state, step, _ = tiny.start(net, accumulate=2)
    batch = tiny.batch(8)
    new, _ = step(state, batch, KEY)
    mean = np.zeros(8)
    for part in (0, 1):
        mean = 0.99 * mean + 0.01 * (batch["x"][part::2] @ kernel).mean(0)
    np.testing.assert_allclose(new.rest["norm/mean"], mean, atol=1e-6)


def test_accumulation_must_divide_the_batch():
    state, step, _ = tiny.start(tiny.Net(rngs=nnx.Rngs(0)), accumulate=3)
    with pytest.raises(ValueError, match="accumulate=3 must divide the batch size; got 8"):
        step(state, tiny.batch(8), KEY)


def test_ema_follows_the_warmed_up_recurrence():
    state, step, _ = tiny.start(tiny.Net(rngs=nnx.Rngs(0)), ema_decay=0.5)
    average = np.asarray(state.params["head/kernel"], np.float64)
    for t in range(5):
        state, _ = step(state, tiny.batch(seed=t), KEY)
        decay = min(0.5, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * np.asarray(state.params["head/kernel"])
    np.testing.assert_allclose(state.ema["head/kernel"], average, rtol=1e-5)
    assert set(state.ema) == set(state.params) | set(state.rest)


def test_dropout_depends_on_key_and_step_alone():
    state, step, _ = tiny.start(tiny.Net(norm=False, rate=0.5, rngs=nnx.Rngs(0)))
    batch = tiny.batch()
    losses = [float(step(state, batch, KEY)[1]["loss"]) for _ in range(2)]
    later = dataclasses.replace(state, step=jnp.asarray(1, jnp.int32))
    assert losses[0] == losses[1]
    assert float(step(later, batch, KEY)[1]["loss"]) != losses[0]
    assert float(step(state, batch, jax.random.key(1))[1]["loss"]) != losses[0]


def test_a_nan_batch_changes_nothing_but_the_count():
    state, step, _ = tiny.start(tiny.Net(rngs=nnx.Rngs(0)), optax.adam(0.1), ema_decay=0.9)
    bad = tiny.batch()
    bad["x"][0, 0] = np.nan
    new, metrics = step(state, bad, KEY)
    assert float(metrics["accepted"]) == 0
    assert int(new.step) == 1
    assert int(new.guard.bad_in_a_row) == 1
    kept = dataclasses.replace(new, step=state.step, guard=state.guard)
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    good, metrics = step(new, tiny.batch(), KEY)
    assert float(metrics["accepted"]) == 1
    assert int(good.guard.bad_in_a_row) == 0


def test_a_spike_is_dropped_after_ten_good_losses():
    guard = train.Guard(policy="skip", spike=3.0)
    state, step, _ = tiny.start(tiny.Net(norm=False, rngs=nnx.Rngs(0)), guard=guard)
    spike = tiny.batch()
    spike["x"] *= 1e4
    _, early = step(state, spike, KEY)
    for seed in range(10):
        state, _ = step(state, tiny.batch(seed=seed), KEY)
    _, late = step(state, spike, KEY)
    assert (float(early["accepted"]), float(late["accepted"])) == (1, 0)


def test_guard_off_applies_whatever_comes():
    state, step, _ = tiny.start(tiny.Net(rngs=nnx.Rngs(0)), guard=train.Guard(policy="off"))
    bad = tiny.batch()
    bad["x"][:] = np.nan
    new, _ = step(state, bad, KEY)
    assert np.isnan(new.params["head/kernel"]).all()


def test_unknown_guard_policy():
    with pytest.raises(ValueError, match="abort, skip, rollback or off; got 'stop'"):
        train.Guard(policy="stop")


def test_a_model_with_rng_state_is_refused():
    with pytest.raises(ValueError, match="must not hold RNG state"):
        train.split(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))


def test_split_and_merge_round_trip():
    net = tiny.Net(rngs=nnx.Rngs(0))
    graphdef, params, rest = train.split(net)
    assert "hidden/kernel" in params
    assert set(rest) == {"norm/mean", "norm/var"}
    twin = train.merge(graphdef, params, rest)
    assert isinstance(twin.norm.mean, nnx.BatchStat)
    np.testing.assert_array_equal(twin.head.kernel[...], net.head.kernel[...])
    assert twin.head.kernel is not net.head.kernel
