# SPDX-License-Identifier: Apache-2.0
"""Timing: how often, in which order, of what; the numbers themselves are the machine's."""

import gc
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers.measure.latency import MOST_CALLS, alternate, latency, sample

pytestmark = pytest.mark.fast


def test_a_module_in_eval_mode_left_as_it_was():
    class Mode(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(jnp.ones(3))
            self.deterministic = False
            self.seen: list[bool] = []

        def __call__(self, x):
            modes.append(self.deterministic)
            return self.scale * x

    modes: list[bool] = []
    model = Mode()
    timed = latency(model, jnp.ones((2, 3)), calls=5)
    assert modes == [True]  # traced once, in eval mode
    assert model.deterministic is False
    assert timed.calls == 5
    assert 0 < timed.p10_ms <= timed.median_ms <= timed.p90_ms
    assert timed.compile_s > 0
    assert jax.default_backend() in timed.device
    assert set(json.loads(json.dumps(timed.to_json()))) == {
        "median_ms",
        "p10_ms",
        "p90_ms",
        "compile_s",
        "device",
        "calls",
    }


def test_shapes_are_filled_and_tuples_spread():
    x = jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), jax.ShapeDtypeStruct((2,), jnp.int32)
    timed = latency(lambda x, rows: x.sum() + rows.sum(), x, calls=2, warmup=1)
    assert timed.calls == 2


def test_thirty_calls_by_default_and_more_within_a_budget():
    calls = []
    sample(lambda: calls.append(1))
    assert len(calls) == 33
    timed = alternate({"a": lambda: time.sleep(1e-4)}, calls=3, budget_s=0.2)["a"]
    assert 30 < timed.calls < MOST_CALLS
    assert alternate({"a": lambda: time.sleep(0.02)}, calls=4, budget_s=0.01)["a"].calls == 4


def test_sides_take_turns():
    order: list[str] = []
    times = alternate(
        {"ours": lambda: order.append("A"), "theirs": lambda: order.append("B")}, calls=3, warmup=2
    )
    assert "".join(order) == "AB" * 5
    assert {t.calls for t in times.values()} == {3}


def test_a_slower_side_is_slower():
    times = alternate(
        {"fast": lambda: time.sleep(0.001), "slow": lambda: time.sleep(0.02)}, calls=7
    )
    assert times["slow"].median_ms > 2 * times["fast"].median_ms
    assert times["slow"].median_ms >= 20


def test_a_call_ends_when_its_result_is_there():
    """An asynchronous dispatch alone takes microseconds; this product takes far longer."""
    a = jnp.ones((700, 700))
    product = jax.jit(lambda a: jax.lax.fori_loop(0, 10, lambda _, c: c @ a / 700, a))
    seconds = sample(lambda: product(a), calls=3, warmup=1)
    flops = 10 * 2 * 700**3
    assert flops / seconds.min() < 1e14
    assert seconds.min() > 1e-3 or jax.default_backend() != "cpu"


def test_the_first_call_stands_apart():
    naps = iter([0.05, *[0.0] * 10])
    timed = alternate({"a": lambda: time.sleep(next(naps))}, calls=3, warmup=1)["a"]
    assert timed.compile_s >= 0.05
    assert timed.median_ms < 40


def test_functions_that_are_not_jax():
    seen = []
    timed = latency(seen.append, np.ones(2), calls=3, warmup=1, jit=False)
    assert (timed.calls, len(seen)) == (3, 4)


def test_the_collector_is_back_afterwards():
    states = []
    sample(lambda: states.append(gc.isenabled()), calls=2, warmup=1)
    assert states == [True, False, False]
    assert gc.isenabled()


def test_errors():
    abstract = nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="with weights"):
        latency(abstract, jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="calls >= 1"):
        sample(lambda: None, calls=0)
