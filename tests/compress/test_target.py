# SPDX-License-Identifier: Apache-2.0
"""The search for a goal: what it finds, how often it measures, what it says when it cannot."""

import dataclasses

import jax.numpy as jnp
import pytest
from flax import nnx

from efficient_layers.compress import target
from efficient_layers.compress.target import goal_of, reach
from efficient_layers.measure.latency import Latency

X = jnp.ones((2, 4))


def linear(width):
    return nnx.eval_shape(lambda: nnx.Linear(4, width, use_bias=False, rngs=nnx.Rngs(0)))


def narrowed(strength):
    """100 outputs, less the share `strength`; one at least."""
    return linear(max(1, 100 - round(100 * strength)))


def found(what, goal, **settings):
    given = {"start": linear(100), "example": X, "build": narrowed, "model_of": lambda m: m}
    return reach(what, goal, **given | settings)


@pytest.mark.parametrize(
    ("what", "goal", "width"),
    [("macs", 0.5, 50), ("params", 200, 50), ("bytes", 0.25, 25), ("macs", 400, 100)],
)
def test_the_least_removal_that_meets_a_goal(what, goal, width):
    """macs = params = 4 a unit, bytes = 16; a goal that is met already takes nothing."""
    assert found(what, goal).out_features in (width, width - 1)
    assert found(what, goal).out_features <= width


def test_equal_structures_are_read_once(monkeypatch):
    read = []

    def counted(model, example):
        read.append(model.out_features)
        return real(model, example)

    real = target.cost
    monkeypatch.setattr(target, "cost", counted)
    built = []

    def build(strength):
        built.append(strength)
        return narrowed(strength)

    small = found("macs", 0.4, build=build, steps=12)
    assert small.out_features == 40
    assert len(built) == 13
    assert len(read) == len(set(read)) < 13


def test_out_of_reach_states_the_best():
    message = r"It: macs cannot fall from 400 to 3. The best that can be reached here is 4, alone\."
    with pytest.raises(ValueError, match=message):
        found("macs", 3, who="It", limit="alone")
    with pytest.raises(ValueError, match=r"from 400 to 2\. The best that can be reached here is 4"):
        found("params", 0.005)


def test_an_unknown_goal():
    with pytest.raises(ValueError, match="A goal is one of macs, params, bytes, latency_ms"):
        found("speed", 0.5)


class Clock:
    """Latencies of 1 ms a unit, with a drift that slows everything and a lucky reading."""

    def __init__(self, monkeypatch, *, lucky=()):
        self.timed, self.drift, self._lucky = [], 1.0, list(lucky)
        monkeypatch.setattr(target, "compiled_view", lambda model, x: Fake(model.out_features))
        monkeypatch.setattr(target, "caller", lambda program: program)
        monkeypatch.setattr(target, "latency", lambda program, calls: self.read(program))
        monkeypatch.setattr(
            target, "alternate", lambda sides, calls: {n: self.read(p) for n, p in sides.items()}
        )

    def read(self, program):
        self.timed.append(program.width)
        ms = program.width * self.drift
        if program.width in self._lucky:
            self._lucky.remove(program.width)
            ms *= 0.5
        return Latency(ms, ms, ms, 0.0, "clock", 30)


@dataclasses.dataclass(frozen=True)
class Fake:
    width: int


def test_latency_in_milliseconds(monkeypatch):
    clock = Clock(monkeypatch)
    assert found("latency_ms", 50, steps=8).out_features == 50
    assert clock.timed.count(50) == 2  # one that meets the goal is timed again


def test_one_lucky_reading_is_not_believed(monkeypatch):
    Clock(monkeypatch, lucky=[75, 62, 56])
    assert found("latency_ms", 50, steps=8).out_features == 50


def test_a_share_of_the_latency_bears_a_machine_that_slows_down(monkeypatch):
    clock = Clock(monkeypatch)
    meter = target.Meter("latency_ms", 0.5, linear(100), X)
    clock.drift = 1.7
    assert meter.read(linear(50)) == pytest.approx(50)
    assert meter.met(linear(50))
    assert not meter.met(linear(51))


@pytest.mark.slow  # a real clock; the search itself is tested with a made-up one
def test_latency_is_really_measured():
    """A real model of 512 x 512 against one of 512 x 4096; the wide one is above half its time."""
    x = jnp.ones((64, 512))

    def build(strength):
        return nnx.Linear(512, max(1, round(2048 * (1 - strength))), rngs=nnx.Rngs(0))

    small = reach(
        "latency_ms",
        0.7,
        start=build(0.0),
        example=x,
        build=build,
        model_of=lambda model: model,
        steps=2,
    )
    assert small.out_features in (1, 512, 1024, 1536)


@dataclasses.dataclass(frozen=True)
class Asks:
    ratio: float | None = None
    macs: float | None = None


def test_goal_of():
    assert goal_of(Asks(macs=0.5)) == ("macs", 0.5)
    assert goal_of(Asks(ratio=0.5), "ratio") == ("ratio", 0.5)
    for bad in ({}, {"macs": 0}, {"macs": float("nan")}, {"macs": "2"}, {"ratio": 0.1, "macs": 1}):
        with pytest.raises(ValueError, match=r"Asks expects a positive .*one of them. Got"):
            goal_of(Asks(**bad), "ratio")
