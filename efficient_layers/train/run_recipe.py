# SPDX-License-Identifier: Apache-2.0
"""A recipe on the model of a workdir: phase after phase, each a workdir of its own.

    OUT/recipe.json            the recipe, and of which run
    OUT/phases/0-remove/       a whole workdir: evaluate it, look at its report, go on from it
    OUT/phases/1-tune/         trained by the ordinary loop, resumed by it
    OUT/                       the last phase's workdir: `el.load(OUT)`

A phase that has its report is done; the same command goes on with the first that has none.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from efficient_layers import compress, measure
from efficient_layers.train import disk
from efficient_layers.train.checkpoint import Checkpointer
from efficient_layers.train.defaults import read_config
from efficient_layers.train.evaluate import eval_step, evaluate, put_on
from efficient_layers.train.experiment import Options
from efficient_layers.train.input import Input, make_input
from efficient_layers.train.journal import journal
from efficient_layers.train.load import load
from efficient_layers.train.objective import make_objective
from efficient_layers.train.optimizer import optimizer, optimizer_settings
from efficient_layers.train.recipe import Phase, phases
from efficient_layers.train.run import INTERRUPTED, MAY_CHANGE, REFUSALS, Result, train
from efficient_layers.train.shutdown import EXIT_PREEMPTED
from efficient_layers.train.state import TrainState, split
from efficient_layers.train.workdir import ConfigMismatchError, Workdir, WorkdirError

_log = logging.getLogger(__name__)
SCHEMA = 1
PACKED = "packed.elp"  # where the recipe wants it, beside the last phase


def run_recipe(
    source: str | Path,
    recipe: ConfigDict,
    out: str | Path,
    *,
    data_dir: str = "",
    max_runtime_s: float | None = None,
    say: Callable[[str], None] = _log.info,
) -> Result:
    """Compresses the model of workdir `source` as `recipe` says; the result is the workdir `out`.

    Args:
      data_dir: replaces the run's own, for a workdir that came from another machine.
      max_runtime_s: a training phase saves and stops after this long; so does the chain.
      say: is told which phase begins.

    Raises:
      ValueError: something in the recipe is wrong, found before any work.
      WorkdirError: `source` is no whole workdir; `out` is another run's, or locked.
    """
    began, source, out = time.monotonic(), Path(source).absolute(), Path(out).absolute()
    if jax.process_count() > 1:
        raise ValueError("A recipe runs in one process. Train its result on with launch.train.")
    folder = Workdir.open(source)
    config = read_config(folder.config)
    config.data.data_dir = data_dir or config.data.data_dir
    chain = phases(recipe, config.to_dict())
    _claim(out, source, recipe)
    original = load(source)
    before, result = source, Result("finished", 0, None)
    for number, phase in enumerate(chain):
        last = number == len(chain) - 1
        here = out if last else out / "phases" / f"{number}-{phase.name}"
        if "compression" in _report_of(here):
            say(f"phase {number + 1} of {len(chain)}, {phase.name}: done before")
            before = here
            continue
        left = None if max_runtime_s is None else max_runtime_s - (time.monotonic() - began)
        if left is not None and left <= 0:
            return Result("max_runtime_s", 0, None)
        say(f"phase {number + 1} of {len(chain)}, {phase.name}: {here}")
        if phase.config is None:
            report = _apply(phase, before, here, config, recipe, read_test=last)
        else:
            phase.config.init_from = str(before)
            options = Options(max_runtime_s=left, read_test=last)
            result = train(phase.config, here, options)
            if result.reason in INTERRUPTED or result.report is None:
                return result
            report = result.report | {"compression": {"phase": phase.name, "rows": []}}
        packed = recipe.packed and last
        _judge(report, original, source, here, config, packed=packed)
        before = here
    return Result("finished", result.step, measure.read_report(out / "report.json"))


def judge_again(out: str | Path) -> dict[str, Any]:
    """Times the result of a recipe and what it began with anew, for a quieter hour; the report.

    Raises:
      ValueError: `out` is no result of a recipe.
    """
    out = Path(out).absolute()
    report = dict(_report_of(out))
    if "compression" not in report:
        raise ValueError(f"{out} holds no result of launch.compress.")
    source = Path(report["compression"]["source"])
    config = read_config(Workdir.open(source).config)
    _judge(report, load(source), source, out, config, packed=(out / PACKED).exists())
    return measure.read_report(out)


def main(source: str, recipe: ConfigDict, out: str, **options: Any) -> int:
    """Runs the recipe, prints the verdict, and returns the process's exit code."""
    try:
        result = run_recipe(source, recipe, out, say=partial(print, flush=True), **options)
    except (*REFUSALS, TypeError) as error:
        _log.debug("refused", exc_info=True)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if result.report is None:
        print(f"{result.reason}: saved. Run the same command to go on.", flush=True)
        return EXIT_PREEMPTED
    print(f"{result.report['compression']['text']}\nreport: {out}/report.html")
    return 0


def explain_recipe(source: str, recipe: ConfigDict) -> int:
    """Prints what the steps of a recipe match in the model of `source`; returns the exit code."""
    try:
        model = load(source)
        for phase in phases(recipe, Workdir.open(source).config):
            said = compress.explain(model, phase.steps) if phase.steps else "  trains"
            print(f"phase {phase.name}\n{said}")
    except REFUSALS as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _claim(out: Path, source: Path, recipe: ConfigDict) -> None:
    """Writes OUT/recipe.json, or checks that the one there is the same.

    Raises:
      WorkdirError: a workdir that no recipe made.
      ConfigMismatchError: another recipe's or another run's.
    """
    file = out / "recipe.json"
    new = json.loads(json.dumps({"schema": SCHEMA, "source": str(source), **recipe.to_dict()}))
    if file.exists():
        old = disk.read_json(file)
        changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        if changed:
            lines = (f"  {key}: {old.get(key)} -> {new.get(key)}" for key in changed)
            raise ConfigMismatchError(
                f"{out} holds the work of another recipe (there -> here):\n"
                + "\n".join(lines)
                + "\nUse a new --out, or the recipe that is there."
            )
        return
    if (out / "config.json").exists():
        raise WorkdirError(f"{out} is the workdir of another run. --out expects a new folder.")
    disk.probe(out)
    disk.write_json(file, new)


def _apply(
    phase: Phase,
    before: Path,
    here: Path,
    config: ConfigDict,
    recipe: ConfigDict,
    *,
    read_test: bool,
) -> dict[str, Any]:
    """One call of `el.compress.apply`, and the workdir of what it gave."""
    disk.probe(here)
    with journal(here / "log.txt"):
        return _applied(phase, before, here, config, recipe, read_test=read_test)


def _applied(
    phase: Phase,
    before: Path,
    here: Path,
    config: ConfigDict,
    recipe: ConfigDict,
    *,
    read_test: bool,
) -> dict[str, Any]:
    inputs, objective = make_input(config), make_objective(config.objective)
    batches = list(inputs.calibration_batches(**recipe.calibration))
    small, log = compress.apply(
        load(before),
        phase.steps,
        example=inputs.example(),
        data=batches,
        loss=lambda model, batch: objective(model, batch, None)[0],
        verdict=False,
    )
    _log.info("%s", log)
    kept = config.copy_and_resolve_references()
    kept.train.ema_decay, kept.train.select, kept.sparsity.name = 0.0, "last", ""
    with _workdir(small, here, kept, _description(before, phase, log), inputs) as folder:
        quality = _quality(small, inputs, objective, read_test=read_test)
        return measure.report(
            small,
            inputs.example(),
            name=folder.model["create"]["name"],
            quality=quality,
            training={},
            history=[],
            batches=tuple(config.report.batches),
            config=kept.to_dict(),
        ) | {"compression": {"phase": phase.name, "rows": log.to_json()["rows"]}}


def _description(before: Path, phase: Phase, log: compress.Log) -> dict[str, Any]:
    """model.json of what `phase` made of the model of the workdir `before`."""
    there = Workdir.open(before).model
    made = {"create": there["create"], "edits": [*there["edits"], *log.edits]}
    pruned = any(isinstance(step, compress.Prune) for step in phase.steps)
    return made | ({"keep_zeros": True} if pruned or there.get("keep_zeros") else {})


def _workdir(
    model: nnx.Module, here: Path, config: ConfigDict, description: dict[str, Any], inputs: Input
) -> Workdir:
    """A workdir whose one checkpoint, of step 0, is `model`."""
    model.train()
    _, params, rest = split(model)
    tx, _ = optimizer(optimizer_settings(config.optimizer.to_dict()), total_steps=1)
    if description.get("keep_zeros"):
        tx = compress.keep_zeros(tx)
    state = TrainState.create(params, rest, tx)
    folder = Workdir.create(
        here,
        config=config.to_dict(),
        model=description,
        may_change=MAY_CHANGE,
        environment=measure.environment() | {"data": inputs.provenance},
        state_bytes=sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
    )
    with Checkpointer(folder.checkpoints) as checkpointer:
        checkpointer.save(0, state, {}, force=True)
    model.eval()
    return folder


def _quality(
    model: nnx.Module, inputs: Input, objective: Any, *, read_test: bool
) -> dict[str, Any]:
    graphdef, params, rest = split(model)
    run = eval_step(objective, graphdef)
    splits = {"validation": inputs.validation_batches()}
    splits |= {"test": inputs.test_batches()} if read_test else {}
    found: dict[str, Any] = {}
    for name, batches in splits.items():
        if batches is not None:
            means = evaluate(run, {**params, **rest}, batches, put_on(jax.devices()[0]))
            found |= {f"{name}_{key}": value for key, value in means.items()}
    return found


def _judge(
    report: dict[str, Any],
    original: nnx.Module,
    source: Path,
    here: Path,
    config: ConfigDict,
    *,
    packed: bool,
) -> None:
    """Adds the verdict against the model that the recipe began with, and writes the report."""
    small = load(here)
    verdict = compress.compare(
        original,
        small,
        make_input(config).example(),
        batches=tuple(config.report.batches),
        quality=(_scores(_report_of(source)), _scores(report)),
    )
    text = str(verdict)
    said: dict[str, Any] = {"source": str(source), "verdict": verdict.to_json()}
    if packed:
        size = compress.save_packed(small, here / PACKED, about=Workdir.open(here).model)
        ratio = verdict.before.weight_bytes / size.stored_bytes
        said["packed_bytes"] = size.stored_bytes
        text += f"\n  {PACKED}: {size.stored_bytes:,} bytes, {ratio:.2f}x fewer"
    said["text"] = text
    measure.write_report(here, report | {"compression": report["compression"] | said})


def _report_of(workdir: Path) -> Mapping[str, Any]:
    file = workdir / "report.json"
    return measure.read_report(file) if file.exists() else {}


def _scores(report: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a report, without counts and steps."""
    found = report.get("quality", {})
    return {k: v for k, v in found.items() if isinstance(v, float) and not k.endswith("examples")}
