# SPDX-License-Identifier: Apache-2.0
"""The one training loop and what it stands on: state, steps, checkpoints, workdirs.

`train(config, workdir)` makes a run; `load(workdir)` gives its model back; `step(objective, tx,
graphdef)` builds the ordinary step for one's own loop.
"""

from efficient_layers.train.checkpoint import (
    Checkpointer,
    CheckpointError,
    CheckpointMismatchError,
)
from efficient_layers.train.compile import lower_step, use_compilation_cache
from efficient_layers.train.defaults import default_config
from efficient_layers.train.dry_run import dry_run
from efficient_layers.train.experiment import Experiment, Options, build
from efficient_layers.train.failure import NonFiniteError
from efficient_layers.train.load import load, score
from efficient_layers.train.loop import Loop, Outcome, Plan
from efficient_layers.train.mesh import make_mesh
from efficient_layers.train.precision import Policy
from efficient_layers.train.recipe import default_recipe
from efficient_layers.train.run import REFUSALS, Result, main, train
from efficient_layers.train.run_recipe import explain_recipe, judge_again, run_recipe
from efficient_layers.train.run_recipe import main as compress_main
from efficient_layers.train.shutdown import EXIT_PREEMPTED, Shutdown
from efficient_layers.train.state import TrainState, merge, split
from efficient_layers.train.step import Guard, step
from efficient_layers.train.workdir import (
    ConfigMismatchError,
    Workdir,
    WorkdirError,
    WorkdirLockedError,
)

__all__ = [
    "EXIT_PREEMPTED",
    "REFUSALS",
    "CheckpointError",
    "CheckpointMismatchError",
    "Checkpointer",
    "ConfigMismatchError",
    "Experiment",
    "Guard",
    "Loop",
    "NonFiniteError",
    "Options",
    "Outcome",
    "Plan",
    "Policy",
    "Result",
    "Shutdown",
    "TrainState",
    "Workdir",
    "WorkdirError",
    "WorkdirLockedError",
    "build",
    "compress_main",
    "default_config",
    "default_recipe",
    "dry_run",
    "explain_recipe",
    "judge_again",
    "load",
    "lower_step",
    "main",
    "make_mesh",
    "merge",
    "run_recipe",
    "score",
    "split",
    "step",
    "train",
    "use_compilation_cache",
]
