# SPDX-License-Identifier: Apache-2.0
"""The end of a run: which weights count, the one reading of the test split, the report."""

from collections.abc import Callable, Iterable
from typing import Any

import jax

from efficient_layers import measure
from efficient_layers.train.checkpoint import Checkpointer
from efficient_layers.train.clock import goodput
from efficient_layers.train.evaluate import EvalStep, eval_step, evaluate, weights
from efficient_layers.train.experiment import Experiment
from efficient_layers.train.loop import Outcome, Plan
from efficient_layers.train.state import TrainState, merge, template


class Evaluator:
    """Evaluates states of one experiment; compiled once."""

    def __init__(self, experiment: Experiment, put: Callable[[dict[str, Any]], Any]) -> None:
        self._run: EvalStep = eval_step(experiment.objective, experiment.graphdef)
        self._input = experiment.input
        self._put = put

    def validation(self, state: TrainState) -> dict[str, float]:
        """Means over the validation split; empty where the run has none."""
        return self._over(state, self._input.validation_batches())

    def test(self, state: TrainState) -> dict[str, float]:
        """Means over the test split; empty where the run has none."""
        return self._over(state, self._input.test_batches())

    def _over(self, state: TrainState, batches: Iterable[Any] | None) -> dict[str, float]:
        if batches is None:
            return {}
        return evaluate(self._run, weights(state), batches, self._put)


def finish(
    experiment: Experiment,
    evaluator: Evaluator,
    outcome: Outcome,
    checkpointer: Checkpointer,
    plan: Plan,
    seconds: dict[str, float],
    history: list[dict[str, Any]],
    *,
    read_test: bool = True,
) -> dict[str, Any]:
    """report.json of the run: quality on test, cost, latency, memory, training, history."""
    state, step = outcome.state, outcome.step
    if experiment.config.train.select == "best" and checkpointer.best_step() is not None:
        step, state, _ = checkpointer.restore(template(state), step="best")
    quality = {f"validation_{k}": v for k, v in evaluator.validation(state).items()}
    if read_test:
        quality |= {f"test_{k}": v for k, v in evaluator.test(state).items()}
    quality |= {"weights_of_step": step}
    model = merge(experiment.graphdef, jax.device_get(weights(state)))
    return measure.report(
        model,
        experiment.input.example(),
        name=experiment.description["create"]["name"],
        quality=quality,
        training=_training(experiment, outcome, plan, seconds),
        history=history,
        batches=tuple(experiment.config.report.batches),
        config=experiment.config.to_dict(),
    )


def _training(
    experiment: Experiment, outcome: Outcome, plan: Plan, seconds: dict[str, float]
) -> dict[str, Any]:
    busy = seconds["step"] + seconds["input"]
    examples = outcome.step * plan.batch_size
    flops = outcome.step * plan.flops_per_step
    return {
        "ended": outcome.reason,
        "seconds": busy + seconds["compile"],
        "compile_s": seconds["compile"],
        "steps": outcome.step,
        "epochs": outcome.step / experiment.steps_per_epoch,
        "batch_size": plan.batch_size,
        "examples_per_s": examples / busy if busy else 0.0,
        "input_wait": seconds["input"] / busy if busy else 0.0,
        "mfu": flops / (busy * plan.peak_flops) if busy else 0.0,
        "peak_flops": plan.peak_flops,
        "goodput": goodput(seconds),
        "seconds_by_activity": seconds,
        "target": outcome.target,
        "mesh": experiment.config.mesh,
        "devices": experiment.mesh.size,
    }
