# SPDX-License-Identifier: Apache-2.0
"""The one loop. It drives any `step(state, batch, key) -> (state, metrics)`.

The host runs one step ahead: while step n computes, the batch of n + 1 is made ready and the
metrics of n - 1 are fetched. Nothing is compiled, and nothing is copied implicitly, in the loop.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array

from efficient_layers.measure.memory import process_peak_bytes
from efficient_layers.train.checkpoint import Checkpointer
from efficient_layers.train.clock import Clock, goodput
from efficient_layers.train.failure import NonFiniteError, write_account
from efficient_layers.train.metrics import MetricsWriter
from efficient_layers.train.progress import Progress
from efficient_layers.train.shutdown import Shutdown
from efficient_layers.train.state import TrainState, template
from efficient_layers.train.step import Guard, Step
from efficient_layers.train.target import Target

_log = logging.getLogger(__name__)
TIMINGS = frozenset(  # what may differ between a run and its resumed twin
    {"elapsed_s", "step_ms", "examples_per_s", "input_wait", "mfu", "goodput", "peak_rss_bytes"}
)


class Batches(Protocol):
    """An endless iterator whose position can be stored and set."""

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]: ...
    def __next__(self) -> dict[str, np.ndarray]: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """When things happen, in steps. `stop_at` ends the run early and leaves the schedule alone."""

    total_steps: int
    stop_at: int
    log_every: int
    eval_every: int
    batch_size: int
    flops_per_step: float = 0.0
    peak_flops: float = 0.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: `reason` is "finished", "target", "stop_after_steps" or a signal's name."""

    state: TrainState
    step: int
    reason: str
    target: dict[str, float] | None  # step, value, seconds, compile_s when it was met


@dataclasses.dataclass
class Loop:
    """The loop and the services it uses. `run` may be called once."""

    step: Step
    key: Array
    batches: Batches
    put: Callable[[dict[str, np.ndarray]], dict[str, Array]]
    evaluate: Callable[[TrainState], dict[str, float]]
    plan: Plan
    guard: Guard
    checkpointer: Checkpointer
    writer: MetricsWriter
    progress: Progress
    shutdown: Shutdown
    clock: Clock
    failures: Path  # where a bad step's account is written
    target: Target | None = None
    stop_at_target: bool = False

    def __post_init__(self) -> None:
        self._window: dict[str, float] = {}
        self._window_steps = 0
        self._pending: tuple[int, dict[str, Array], Any] | None = None
        self._mark = (0.0, 0.0)  # (step, input) seconds at the last log line
        self._saved_at = -1
        self._reached: dict[str, float] | None = None
        self._rollbacks = 0

    def run(self, state: TrainState, at: int = 0) -> Outcome:
        """Train from step `at` (which `state` has) to the plan's end, a target or a signal.

        Raises NonFiniteError as the guard's policy says. The state handed in is donated.
        """
        self._paths = sorted(state.params)
        self._template = template(state)
        reason = "finished" if self.plan.stop_at >= self.plan.total_steps else "stop_after_steps"
        if self.guard.policy == "rollback" and self.checkpointer.latest_step() is None:
            self._save(state, at)
        self._mark = self._spent()
        with jax.transfer_guard("disallow"):
            while at < self.plan.stop_at:
                if signal := self.shutdown.agreed(at):
                    reason = signal
                    break
                try:
                    state = self._advance(state, at + 1)
                    at += 1
                    if self._attend(state, at):
                        reason = "target"
                        break
                except _RollBackError:
                    state, at = self._roll_back()
            self._save(state, at)
        return Outcome(state, at, reason, self._reached)

    def snapshot(self) -> dict[str, Any]:
        """What must be stored beside the state to go on as if nothing had happened."""
        return {
            "iterator": self.batches.get_state(),
            "window": self._window,
            "window_steps": self._window_steps,
            "target": self._reached,
            "seconds": self.clock.seconds,
        }

    def resume(self, extra: dict[str, Any]) -> None:
        """Take up the position that `snapshot` stored (the clock's totals are the caller's)."""
        self.batches.set_state(extra["iterator"])
        self._window = dict(extra["window"])
        self._window_steps = extra["window_steps"]
        self._reached = extra["target"]

    def _advance(self, state: TrainState, at: int) -> TrainState:
        """Dispatch step `at`, then settle the one before while it runs."""
        self.clock.switch("input")
        host = next(self.batches)
        self.clock.switch("step")
        state, metrics = self.step(state, self.put(host), self.key)
        self._settle()
        self._pending = (at, metrics, host.get("index"))
        return state

    def _attend(self, state: TrainState, at: int) -> bool:
        """Everything that is due after step `at`; True where the run should end at its target."""
        if at % self.plan.eval_every == 0 or at == self.plan.stop_at:
            return self._evaluate(state, at)
        if self.checkpointer.due(at):
            self._save(state, at)
        return False

    def _settle(self) -> None:
        """Fetch the metrics of the step before; log them where a line is due."""
        if self._pending is None:
            return
        (at, metrics, index), self._pending = self._pending, None
        with jax.transfer_guard_device_to_host("allow"):
            values = jax.tree.map(np.asarray, metrics)  # device_get takes five times as long
        norms = values.pop("grad_norms", None)
        if values.get("accepted", 1.0) < 1:
            self._bad_step(at, values, norms, index)
        for name, value in values.items():
            self._window[name] = self._window.get(name, 0.0) + float(value)
        self._window_steps += 1
        if at % self.plan.log_every == 0:
            self._log(at)

    def _log(self, at: int) -> None:
        means = {_train(k): v / self._window_steps for k, v in sorted(self._window.items())}
        step_s, input_s = (now - then for now, then in zip(self._spent(), self._mark, strict=True))
        per_step = (step_s + input_s) / self._window_steps
        seconds = self.clock.seconds
        rates = {
            "step_ms": 1e3 * per_step,
            "examples_per_s": self.plan.batch_size / per_step if per_step else 0.0,
            "input_wait": input_s / (step_s + input_s) if per_step else 0.0,
            "goodput": goodput(seconds),
            "elapsed_s": sum(seconds.values()),
            "peak_rss_bytes": process_peak_bytes() or 0,
        }
        if self.plan.peak_flops and per_step:
            rates["mfu"] = self.plan.flops_per_step / (per_step * self.plan.peak_flops)
        self.writer.write(at, means | rates)
        self.progress.update(at, means | rates)
        self._window, self._window_steps, self._mark = {}, 0, self._spent()

    def _evaluate(self, state: TrainState, at: int) -> bool:
        self._settle()
        self.clock.switch("evaluate")
        # Evaluation may place arrays of its own (masks, padding): only the hot path is guarded.
        with jax.transfer_guard("allow"):
            metrics = self.evaluate(state)
        self.clock.switch("step")
        if metrics:
            named = {f"validation/{name}": value for name, value in metrics.items()}
            self.writer.write(at, named | {"elapsed_s": self.clock.elapsed})
            self.progress.update(at, named)
            self._aim(at, metrics)
        if metrics or self.checkpointer.due(at):
            self._save(state, at, metrics)
        return self.stop_at_target and self._reached is not None

    def _aim(self, at: int, metrics: dict[str, float]) -> None:
        """Time to target: training and input, compilation counted and shown apart."""
        if self.target is None or self._reached is not None or not self.target.met(metrics):
            return
        seconds = self.clock.seconds
        self._reached = {
            "step": at,
            "value": metrics[self.target.metric],
            "seconds": seconds["step"] + seconds["input"] + seconds["compile"],
            "compile_s": seconds["compile"],
        }
        self.progress.message(
            f"target {self.target} met at step {at} after {self._reached['seconds']:.1f} s of "
            f"training, {seconds['compile']:.1f} s of it compilation"
        )

    def _save(self, state: TrainState, at: int, metrics: dict[str, float] | None = None) -> None:
        self._settle()
        if self._saved_at == at:
            return
        self.clock.switch("checkpoint")
        with jax.transfer_guard("allow"):
            self.checkpointer.save(at, state, self.snapshot(), metrics=metrics, force=True)
        self._saved_at = at
        self.clock.switch("step")

    def _roll_back(self) -> tuple[TrainState, int]:
        """The last checkpoint's weights; the data goes on from where it is."""
        self._rollbacks += 1
        if self._rollbacks > self.guard.patience:
            raise NonFiniteError(
                f"rolled back {self.guard.patience} times; the last accounts are in {self.failures}"
            )
        self.clock.switch("checkpoint")
        with jax.transfer_guard("allow"):
            at, state, extra = self.checkpointer.restore(self._template)
        self._pending = None
        self._window, self._window_steps = dict(extra["window"]), extra["window_steps"]
        self.writer.truncate_after(at)
        self.progress.message(f"rolled back to step {at}; going on with later data")
        self.clock.switch("step")
        self._mark = self._spent()
        return state, at

    def _bad_step(self, at: int, values: dict[str, Any], norms: Any, index: Any) -> None:
        metrics = {name: float(value) for name, value in values.items()}
        grad_norms = dict(zip(self._paths, map(float, norms), strict=True))
        what = write_account(self.failures, at, metrics, grad_norms, index)
        in_a_row = int(metrics["bad_in_a_row"])
        if self.guard.policy == "abort" or in_a_row >= self.guard.patience:
            raise NonFiniteError(
                f"{what}. Guard: {self.guard.policy}, {in_a_row} in a row. Lower the learning "
                "rate, clip gradients, or go on without such batches by "
                "--config.train.guard.policy=skip."
            )
        _log.warning("%s", what)
        if self.guard.policy == "rollback":
            raise _RollBackError

    def _spent(self) -> tuple[float, float]:
        seconds = self.clock.seconds
        return seconds["step"], seconds["input"]


class _RollBackError(Exception):
    """Unwinds to `run`, which restores the last checkpoint."""


def _train(name: str) -> str:
    """Metrics of the model go under `train/`; those of the optimiser keep their name."""
    return name if name in _OPTIMIZER else f"train/{name}"


_OPTIMIZER = {"learning_rate", "grad_norm", "param_norm", "update_norm", "accepted", "bad_in_a_row"}
