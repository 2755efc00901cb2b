# SPDX-License-Identifier: Apache-2.0
"""Schedules against their formulas in plain Python and against torch."""

import math

import jax
import numpy as np
import pytest

from efficient_layers.train import schedule as schedules

pytestmark = pytest.mark.fast
SIZES = {"total_steps": 100, "steps_per_epoch": 10, "batch_size": 4}


def values(config, steps=range(101), learning_rate=0.5, **sizes):
    rate = schedules.schedule(config, learning_rate=learning_rate, **{**SIZES, **sizes})
    return np.array([float(rate(s)) for s in steps])


REQUIRED = {"step": {"every": "2 epochs"}, "exponential": {"rate": 0.5}}


@pytest.mark.parametrize("name", schedules.names())
def test_every_schedule_warms_up_to_its_peak_and_traces(name):
    config = {"name": name, "warmup": "1 epoch", **REQUIRED.get(name, {})}
    got = values(config, range(11))
    np.testing.assert_allclose(got, 0.5 * np.arange(1, 12) / 11, rtol=1e-6)
    rate = schedules.schedule(config, learning_rate=0.5, **SIZES)
    traced = jax.jit(rate)(37)
    assert traced.dtype == np.float32
    assert traced.shape == ()
    np.testing.assert_allclose(traced, rate(37), rtol=1e-6)
    late = values(config, range(10, 102))
    assert np.isfinite(late).all()
    assert (late >= 0).all()
    assert (np.diff(late) <= 1e-8).all()  # none of them rises after the warm-up


def test_cosine():
    want = [0.05 + 0.45 * (1 + math.cos(math.pi * min(t, 100) / 100)) / 2 for t in range(121)]
    got = values({"name": "cosine", "final": 0.1}, range(121))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_linear_ends_at_final():
    got = values({"name": "linear", "final": 0.2}, [0, 50, 100, 200])
    np.testing.assert_allclose(got, [0.5, 0.3, 0.1, 0.1], rtol=1e-6)


def test_wsd_is_flat_and_then_falls():
    got = values({"name": "wsd", "warmup": 10, "decay": "25%"}, [10, 75, 80, 100, 101])
    np.testing.assert_allclose(got, [0.5, 0.5, 0.4, 0.0, 0.0], rtol=1e-5, atol=1e-8)
    root = values({"name": "wsd", "decay": 36, "shape": "sqrt"}, [64, 73, 100])
    np.testing.assert_allclose(root, [0.5, 0.25, 0.0], rtol=1e-5, atol=1e-8)


def test_step_and_exponential():
    config = {"name": "step", "boundaries": ["3 epochs", "60%"], "factor": 0.1}
    got = values(config, [0, 29, 30, 59, 60, 100])
    np.testing.assert_allclose(got, [0.5, 0.5, 0.05, 0.05, 0.005, 0.005], rtol=1e-5)
    got = values({"name": "exponential", "rate": 0.9, "every": "2 epochs"}, [0, 10, 20])
    np.testing.assert_allclose(got, [0.5, 0.5 * 0.9**0.5, 0.45], rtol=1e-6)
    stairs = {"name": "exponential", "rate": 0.9, "every": 20, "staircase": True}
    np.testing.assert_allclose(values(stairs, [19, 20, 39]), [0.5, 0.45, 0.45], rtol=1e-6)


def test_rsqrt():
    got = values({"name": "rsqrt", "timescale": 25, "cooldown": 10}, [0, 75, 95, 100])
    want = [0.5, 0.25, 0.5 * math.sqrt(25 / 120) * 0.5, 0.0]
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.oracle
def test_cosine_and_step_equal_torch():
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")

    def run(make):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        scheduler = make(optimizer)
        rates = []
        for _ in range(100):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return rates

    lr = torch.optim.lr_scheduler
    cosine = run(lambda o: lr.CosineAnnealingLR(o, 100, eta_min=0.05))
    np.testing.assert_allclose(values({"name": "cosine", "final": 0.1}, range(100)), cosine, 1e-5)
    step = run(lambda o: lr.StepLR(o, 30, 0.2))
    config = {"name": "step", "every": 30, "factor": 0.2}
    np.testing.assert_allclose(values(config, range(100)), step, 1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "cosin"}, "Did you mean 'cosine'"),
        ({"name": "cosine", "fianl": 0.1}, "Did you mean 'final'"),
        ({"name": "constant", "final": 0.1}, "unknown option of schedule 'constant'"),
        ({"name": "cosine", "warmup": "11 epochs"}, "warm-up takes 110 steps"),
        ({"name": "wsd", "warmup": "50%", "decay": "60%"}, "after the warm-up 50 are left"),
        ({"name": "wsd", "shape": "cubic"}, "'linear' or 'sqrt'"),
        ({"name": "step"}, "either boundaries"),
        ({"name": "step", "every": 3, "boundaries": [4]}, "either boundaries"),
        ({"name": "step", "every": 0}, "at least one step"),
        ({"name": "exponential"}, "needs rate"),
    ],
)
def test_errors(config, message):
    with pytest.raises(ValueError, match=message):
        values(config)


def test_none_counts_as_not_given():
    np.testing.assert_array_equal(
        values({"name": "constant", "final": None, "warmup": None}), np.full(101, 0.5, np.float32)
    )
