# SPDX-License-Identifier: Apache-2.0
"""Time to target: seconds of training until a metric first reaches a stated value.

The convention of MLPerf's training benchmark and DAWNBench (time to accuracy), with two numbers
instead of one: compilation is counted in the total and shown apart; evaluation is excluded.
"""

import contextlib
import dataclasses
import math
import operator
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_OPS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"\s*([A-Za-z_][\w./-]*)\s*(>=|<=|>|<)\s*(\S+)\s*")


@dataclasses.dataclass(frozen=True)
class Target:
    """A metric, a comparison and a value: `Target.parse("accuracy>=0.98")`."""

    metric: str
    op: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "Target":
        """From `metric`, one of `>= <= > <`, and a number. Raises ValueError on another form."""
        match = _FORM.fullmatch(text)
        try:
            value = float(match[3]) if match else math.nan
        except ValueError:
            value = math.nan
        if not match or math.isnan(value):
            raise ValueError(
                "a target is a metric, one of >= <= > <, and a number, e.g. 'accuracy>=0.98'. "
                f"Got {text!r}."
            )
        return cls(match[1], match[2], value)

    def met(self, metrics: Mapping[str, float]) -> bool:
        """Whether `metrics` reaches the target; NaN never does.

        Raises:
          KeyError: `metrics` has no such name.
        """
        if self.metric not in metrics:
            known = ", ".join(sorted(metrics)) or "none"
            raise KeyError(f"target {self}: no metric {self.metric!r}, only {known}.")
        return bool(_OPS[self.op](float(metrics[self.metric]), self.value))

    def __str__(self) -> str:
        return f"{self.metric}{self.op}{self.value:g}"


class TimeToTarget:
    """A stopwatch for one target; its `state` goes into the checkpoint, so restarts add up.

    watch = TimeToTarget(Target.parse("accuracy>=0.98"))
    watch.start()
    with watch.compiling(): ...
    with watch.paused(): metrics = evaluate()
    if watch.check(step, metrics): ...
    """

    def __init__(
        self,
        target: Target,
        state: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        state = state or {}
        self.target = target
        self._clock = clock
        self._seconds = float(state.get("seconds", 0.0))
        self._compile = float(state.get("compile_s", 0.0))
        self._reached: dict[str, Any] | None = state.get("reached")
        self._since: float | None = None

    def start(self) -> None:
        """Starts or restarts the clock."""
        self._since = self._clock()

    def stop(self) -> None:
        """Stops the clock; what has run so far is kept."""
        if self._since is not None:
            self._seconds += self._clock() - self._since
            self._since = None

    @property
    def seconds(self) -> float:
        """Seconds of training so far, compilation included, evaluation excluded."""
        running = self._clock() - self._since if self._since is not None else 0.0
        return self._seconds + running

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Evaluation, checkpoint waits: not counted."""
        running = self._since is not None
        self.stop()
        try:
            yield
        finally:
            if running:
                self.start()

    def add_compile(self, seconds: float) -> None:
        """Marks `seconds` of what the clock counted as compilation."""
        self._compile += seconds

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Compilation: counted, and shown apart."""
        before = self._clock()
        try:
            yield
        finally:
            self.add_compile(self._clock() - before)

    def check(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether the target is reached now or was before; the first time is remembered."""
        if self._reached is None and self.target.met(metrics):
            self._reached = {
                "step": step,
                "seconds": self.seconds,
                "compile_s": self._compile,
                "value": float(metrics[self.target.metric]),
            }
        return self._reached is not None

    @property
    def state(self) -> dict[str, Any]:
        """JSON-able; give it back to the constructor after a restart."""
        return {"seconds": self.seconds, "compile_s": self._compile, "reached": self._reached}

    def summary(self) -> dict[str, Any]:
        """For report.json: `target`, `reached`, `step`, `seconds`, `compile_s`, `value`."""
        empty = {"step": None, "seconds": None, "compile_s": self._compile, "value": None}
        found = self._reached or empty
        return {"target": str(self.target), "reached": self._reached is not None, **found}
