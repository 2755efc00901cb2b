# SPDX-License-Identifier: Apache-2.0
"""A run from configuration to report: `train(config, workdir, options)`."""

import contextlib
import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from efficient_layers import measure
from efficient_layers.data import MissingDataError
from efficient_layers.train import mesh as meshes
from efficient_layers.train.checkpoint import Checkpointer
from efficient_layers.train.clock import Clock
from efficient_layers.train.compile import lower_step
from efficient_layers.train.disk import DiskError
from efficient_layers.train.evaluate import metric_names, put_on
from efficient_layers.train.experiment import Experiment, Options, build
from efficient_layers.train.failure import NonFiniteError
from efficient_layers.train.finish import Evaluator, finish
from efficient_layers.train.journal import journal
from efficient_layers.train.loop import Loop, Plan
from efficient_layers.train.metrics import SINKS, MetricsWriter, read
from efficient_layers.train.progress import Progress
from efficient_layers.train.shutdown import EXIT_PREEMPTED, Shutdown
from efficient_layers.train.state import TrainState, template
from efficient_layers.train.target import Target
from efficient_layers.train.workdir import Workdir

_log = logging.getLogger(__name__)
INTERRUPTED = ("SIGTERM", "SIGINT", "max_runtime_s")  # saved; the same command goes on
# What a user can mend: told in its own words, without a traceback.
REFUSALS = (ValueError, ImportError, DiskError, MissingDataError, NonFiniteError)
# Where a run lives, not what it computes: another machine may have other disks and devices.
MAY_CHANGE = ("data.data_dir", "mesh", "sharding_rules", "fsdp_min_size")


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended. `report` is None where it stopped before its end."""

    reason: str
    step: int
    report: dict[str, Any] | None


def train(config: ConfigDict, workdir: str | Path, options: Options = Options()) -> Result:
    """Trains what `config` describes and leaves a workdir; resumes where one is there.

    Raises:
      ValueError: something in `config` or `options` is wrong (before any work).
      WorkdirError: the workdir is locked, another run's, or cannot be written.
      NonFiniteError: the guard stopped the run.
    """
    clock = Clock()
    with Shutdown(max_runtime_s=options.max_runtime_s) as shutdown:
        target = Target.parse(options.target) if options.target else None
        experiment = build(config, options)
        _check_metrics(experiment, target)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(_open(workdir, experiment))
            stack.enter_context(journal(folder.log_path))
            return _run(stack, experiment, folder, options, target, shutdown, clock)


def _check_metrics(experiment: Experiment, target: Target | None) -> None:
    """The metrics a run is steered by exist: better known now than at the first evaluation."""
    known = metric_names(experiment)
    best = experiment.config.train.checkpoint.best_metric
    for what, name in {
        "config.train.checkpoint.best_metric": best,
        "--target": target.metric if target else "",
    }.items():
        if name and name not in known:
            raise ValueError(f"{what}: no metric {name!r}; there is {', '.join(known)}")
    if (target or experiment.config.train.select == "best") and experiment.input.validation is None:
        raise ValueError(
            "a target and train.select=best need a validation split; set "
            "config.data.validation_fraction above 0"
        )


def _open(workdir: str | Path, experiment: Experiment) -> Workdir:
    state = jax.eval_shape(experiment.init)
    return Workdir.create(
        workdir,
        config=experiment.config.to_dict(),
        model=experiment.description,
        may_change=MAY_CHANGE,
        environment=measure.environment() | {"data": experiment.input.provenance},
        state_bytes=sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
    )


def _run(
    stack: contextlib.ExitStack,
    experiment: Experiment,
    folder: Workdir,
    options: Options,
    target: Target | None,
    shutdown: Shutdown,
    clock: Clock,
) -> Result:
    plan = _plan(experiment, options)
    checkpointer = stack.enter_context(_checkpointer(experiment, folder))
    also = [SINKS[name](str(folder.path)) for name in experiment.config.train.log_to]
    writer = stack.enter_context(MetricsWriter(folder.metrics_path, also=also))
    state, at, extra = _start(experiment, checkpointer)
    if extra:
        clock.add(extra["seconds"])
        clock.add({"lost": _lost_seconds(folder, extra["seconds"])})
        writer.truncate_after(at)
        _log.info("resumed from step %d of %d", at, plan.total_steps)
    else:
        _log.info("%s: %d steps, %s", folder.path, plan.total_steps, experiment.summary)
        for line in experiment.loaded:
            _log.info("%s", line)
    clock.switch("compile")
    compiled = lower_step(experiment, state).compile()
    put = put_on(meshes.batch_sharding(experiment.mesh))
    evaluator = Evaluator(experiment, put)
    loop = Loop(
        step=compiled,
        key=jax.device_put(experiment.key, meshes.replicated(experiment.mesh)),
        batches=stack.enter_context(contextlib.closing(experiment.input.train_batches())),
        put=put,
        evaluate=evaluator.validation,
        plan=plan,
        guard=experiment.guard,
        checkpointer=checkpointer,
        writer=writer,
        progress=stack.enter_context(Progress(plan.stop_at, at)),
        shutdown=shutdown,
        clock=clock,
        failures=folder.path / "failures",
        target=target,
        stop_at_target=options.stop_at_target,
    )
    if extra:
        loop.resume(extra)
    _log.info("compiled in %.1f s", clock.seconds["compile"])
    outcome = loop.run(state, at)
    checkpointer.wait()
    reason = shutdown.requested or outcome.reason
    _log.info("%s at step %d", reason, outcome.step)
    if reason in INTERRUPTED:
        return Result(reason, outcome.step, None)
    history = read(folder.metrics_path)
    report = finish(
        experiment,
        evaluator,
        outcome,
        checkpointer,
        plan,
        clock.seconds,
        history,
        read_test=options.read_test,
    )
    measure.write_report(folder.path, report)
    return Result(reason, outcome.step, report)


def _plan(experiment: Experiment, options: Options) -> Plan:
    config = experiment.config.train
    total = experiment.total_steps
    stop = min(total, options.stop_after_steps or total)
    macs = experiment.cost.macs
    return Plan(
        total_steps=total,
        stop_at=stop,
        log_every=min(experiment.steps(config.log_every), stop),
        eval_every=experiment.steps(config.eval_every),
        batch_size=experiment.input.batch_size,
        # Forward is 2 FLOPs a MAC, backward twice the forward.
        flops_per_step=3 * 2 * macs * experiment.input.batch_size,
        peak_flops=measure.matmul_peak(experiment.policy.compute_dtype) * experiment.mesh.size,
    )


def _checkpointer(experiment: Experiment, folder: Workdir) -> Checkpointer:
    config = experiment.config.train.checkpoint
    return Checkpointer(
        folder.checkpoints,
        temporary_every_s=config.temporary_every_s,
        permanent_every_steps=experiment.steps(config.permanent_every),
        best_metric=config.best_metric or None,
        best_mode=config.best_mode,
    )


def _start(
    experiment: Experiment, checkpointer: Checkpointer
) -> tuple[TrainState, int, dict[str, Any]]:
    """(state, step, extra): the last good checkpoint's, or a fresh state with no extra."""
    abstract = jax.eval_shape(experiment.init)
    shardings = experiment.shardings(abstract)
    if checkpointer.latest_step() is None:
        return jax.device_put(experiment.init(), shardings), 0, {}
    at, state, extra = checkpointer.restore(template(abstract, shardings))
    return state, at, extra


def _lost_seconds(folder: Workdir, stored: dict[str, float]) -> float:
    """Seconds of work done after the checkpoint, as far as the metrics file tells."""
    lines = [line["elapsed_s"] for line in read(folder.metrics_path) if "elapsed_s" in line]
    return max(0.0, max(lines, default=0.0) - sum(stored.values()))


def main(config: ConfigDict, workdir: str, options: Options) -> int:
    """Trains, prints where the report is, and returns the process's exit code."""
    try:
        result = train(config, workdir, options)
    except REFUSALS as error:
        _log.debug("refused", exc_info=True)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if result.report is None:
        print(
            f"{result.reason} at step {result.step}: saved. Run the same command to go on.",
            flush=True,
        )
        return EXIT_PREEMPTED
    quality = {k: v for k, v in result.report["quality"].items() if isinstance(v, float)}
    shown = "  ".join(f"{name} {value:.4f}" for name, value in quality.items())
    print(f"{result.reason} at step {result.step}  {shown}\nreport: {workdir}/report.html")
    return 0
