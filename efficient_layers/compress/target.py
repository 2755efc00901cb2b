# SPDX-License-Identifier: Apache-2.0
"""How far a technique has to go: the least strength at which a model costs no more than a goal."""

import math
import numbers
from collections.abc import Callable
from typing import Any, TypeVar

from flax import nnx

from efficient_layers.compress.edits import variables
from efficient_layers.compress.log import Size
from efficient_layers.measure.cost import cost
from efficient_layers.measure.latency import alternate, caller, latency
from efficient_layers.measure.program import Program, compiled_view

T = TypeVar("T")

GOALS = ("macs", "params", "bytes", "latency_ms")
STEPS = 8  # of the bisection: the strength to 0.4 %
LATENCY_STEPS = 5  # each compiles a model: the strength to 3 %
CALLS = 30  # timed, of which the median counts


def goal_of(technique: Any, *also: str, names: tuple[str, ...] = GOALS) -> tuple[str, float]:
    """The one of the settings `names` and `also` that `technique` was given, and its value.

    Raises:
      ValueError: none or several are given; one that is not a positive number.
    """
    settings = {name: getattr(technique, name, None) for name in (*also, *names)}
    given = {name: value for name, value in settings.items() if value is not None}
    if len(given) != 1 or not all(_positive(value) for value in given.values()):
        raise ValueError(
            f"{type(technique).__name__} expects a positive "
            f"{', '.join(settings)}; one of them. Got {given}."
        )
    return next(iter(given.items()))


def reach(
    what: str,
    goal: float,
    *,
    start: nnx.Module,
    example: Any,
    build: Callable[[float], T],
    model_of: Callable[[T], nnx.Module],
    read: Callable[[T], float] | None = None,
    steps: int | None = None,
    who: Any = "compress",
    limit: str = "",
) -> T:
    """`build(strength)` for the least strength, to 1 / 2**steps, whose model meets the goal.

    Bisection: strength 0 is the model as it is, 1 as small as `build` makes it; a model of a
    greater strength should not cost more. Models of equal arrays are measured once.

    macs, params and bytes are counted (`measure.cost`) and know no noise. `latency_ms` is measured
    on this device: the median of 30 warm calls of the jitted model. Against noise, a model that
    meets the goal is timed again and the slower median counts; for a goal that is a share, `start`
    is called in turn with it, and the ratio of the medians counts. Latency need not fall with every
    channel (33 may be slower than 32), so what is found meets the goal, and a smaller removal may
    meet it, too.

    Args:
      what: "macs", "params", "bytes" or "latency_ms".
      goal: what the model may cost, in that unit; below 1, the share of what `start` costs.
      start: the model as it is.
      example: the model's input; for params and bytes it may be None.
      build: strength in [0, 1] -> a candidate.
      model_of: its model. Shapes alone will do, except for `latency_ms`, which runs it.
      read: what a candidate costs, where that is known without its model.
      steps: of the bisection; None: 8, and 5 for `latency_ms`.
      who: whose error it is.
      limit: what strength 1 means, for the error: "with one unit left of every group".

    Raises:
      ValueError: the goal cannot be reached; the best that can is stated.
    """
    meter = Meter(what, goal, start, example)
    if meter.met(start):
        return build(0.0)

    def costs(candidate: T) -> float:
        return meter.read(model_of(candidate)) if read is None else read(candidate)

    low, high = 0.0, 1.0
    best = build(high)
    if costs(best) > meter.wanted:
        raise ValueError(
            f"{who}: {what} cannot fall from {_shown(meter.now)} to {_shown(meter.wanted)}. The "
            f"best that can be reached here is {_shown(costs(best))}"
            f"{', ' + limit if limit else ''}."
        )
    for _ in range(steps or (LATENCY_STEPS if what == "latency_ms" else STEPS)):
        middle = (low + high) / 2
        candidate = build(middle)
        if costs(candidate) <= meter.wanted:
            high, best = middle, candidate
        else:
            low = middle
    return best


class Meter:
    """Reads one cost of models, each structure once; `now` is that of `start`."""

    def __init__(self, what: str, goal: float, start: nnx.Module, example: Any) -> None:
        if what not in GOALS:
            raise ValueError(f"A goal is one of {', '.join(GOALS)}. Got {what!r}.")
        self._what, self._share, self._example = what, goal < 1, example
        self._read: dict[Any, float] = {}
        self._start = compiled_view(start, example) if what == "latency_ms" else None
        self.now = latency(self._start, calls=CALLS).median_ms if self._start else self.read(start)
        self._read[_structure(start)] = self.now
        self.wanted = goal * self.now if self._share else goal

    def met(self, model: nnx.Module) -> bool:
        """Whether `model` costs no more than is wanted."""
        return self.read(model) <= self.wanted

    def read(self, model: nnx.Module) -> float:
        """What `model` costs."""
        key = _structure(model)
        if key not in self._read:
            self._read[key] = self._counted(model) if self._start is None else self._timed(model)
        return self._read[key]

    def _counted(self, model: nnx.Module) -> float:
        if self._what == "macs":
            return cost(model, self._example).macs
        size = Size.of(model)  # as `cost` has them, without a trace
        return size.params if self._what == "params" else size.bytes

    def _timed(self, model: nnx.Module) -> float:
        """Milliseconds; of a goal that is a share, those that the ratio to `start` means."""
        program = compiled_view(model, self._example)
        first = self._milliseconds(program)
        return first if first > self.wanted else max(first, self._milliseconds(program))

    def _milliseconds(self, program: Program) -> float:
        if not self._share:
            return latency(program, calls=CALLS).median_ms
        assert self._start is not None
        times = alternate({"start": caller(self._start), "candidate": caller(program)}, calls=CALLS)
        return self.now * times["candidate"].median_ms / times["start"].median_ms


def _structure(model: nnx.Module) -> Any:
    return tuple((path, tuple(v.shape), str(v.dtype)) for path, v in variables(model))


def _positive(value: Any) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


def _shown(value: float) -> str:
    whole = isinstance(value, int) or value >= 1e3
    return f"{value:,.0f}" if whole else f"{value:.4g}"
