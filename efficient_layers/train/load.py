# SPDX-License-Identifier: Apache-2.0
"""`el.load(workdir)`: the only reader of a trained model. Nothing in a workdir is executed."""

from pathlib import Path
from typing import Any

import jax
from flax import nnx

from efficient_layers import compress, models
from efficient_layers.train.checkpoint import Checkpointer
from efficient_layers.train.defaults import read_config
from efficient_layers.train.evaluate import eval_step, evaluate, put_on, weights
from efficient_layers.train.input import make_input
from efficient_layers.train.objective import make_objective
from efficient_layers.train.optimizer import optimizer, optimizer_settings
from efficient_layers.train.precision import Policy
from efficient_layers.train.sparsity import sparse
from efficient_layers.train.state import TrainState, merge
from efficient_layers.train.state import split as split_model
from efficient_layers.train.workdir import Workdir


def load(
    workdir: str | Path, *, step: int | str | None = None, model: nnx.Module | None = None
) -> Any:
    """The model a workdir holds, in eval mode, with the weights its run would ship.

    Args:
      step: a step number, "latest" or "best" (by validation); None takes what the run's
        configuration selects.
      model: an uncompressed instance, where the model is not one of `el.models`; it is left as
        it was.

    Raises:
      WorkdirError, CheckpointError: something is missing or unreadable; the message names it.
      CheckpointMismatchError: the weights are of another model; all differences are listed.
    """
    folder = Workdir.open(workdir)
    template, graphdef = _template(folder, model)
    with Checkpointer(folder.checkpoints, read_only=True) as checkpointer:
        selected = "best" if folder.config["train"]["select"] == "best" else "latest"
        if step is None and checkpointer.best_step() is None:
            selected = "latest"
        _, state, _ = checkpointer.restore(template, step=selected if step is None else step)
    loaded = merge(graphdef, weights(state))
    loaded.eval()
    return loaded


def score(
    workdir: str | Path, split: str = "test", *, step: int | str | None = None, data_dir: str = ""
) -> dict[str, float]:
    """The objective's metrics of a workdir's model over "test" or "validation", each example once.

    `data_dir` replaces the configuration's, for a workdir that came from another machine.
    Raises ValueError where the data set has no such split, and what `load` raises.
    """
    model = load(workdir, step=step)
    config = read_config(Workdir.open(workdir).config)
    if data_dir:
        config.data.data_dir = data_dir
    inputs = make_input(config)
    batches = inputs.test_batches() if split == "test" else inputs.validation_batches()
    if batches is None:
        raise ValueError(f"{inputs.info.name} has no {split} split; it has {inputs.info.sizes}")
    graphdef, params, rest = split_model(model)
    run = eval_step(make_objective(config.objective), graphdef)
    return evaluate(run, {**params, **rest}, batches, put_on(jax.devices()[0]))


def _template(folder: Workdir, model: nnx.Module | None) -> tuple[TrainState, nnx.GraphDef]:
    """The run's state without its arrays, and its model's graph."""
    create = folder.model["create"]

    def build() -> nnx.Module:
        return models.create(create["name"], **create["fields"], rngs=nnx.Rngs(0))

    config = read_config(folder.config)
    abstract = nnx.eval_shape(build) if model is None else model
    if model is None:
        abstract = Policy.parse(config.train.precision).apply(abstract)
    graphdef, params, rest = split_model(compress.rebuild(abstract, folder.model["edits"]))
    tx, _ = optimizer(optimizer_settings(config.optimizer.to_dict()), total_steps=1)
    zeros = folder.model.get("keep_zeros", False)
    tx = sparse(tx, config.sparsity.to_dict(), lambda _: 1, keep_zeros=zeros)
    ema = config.train.ema_decay > 0
    return jax.eval_shape(lambda p, r: TrainState.create(p, r, tx, ema=ema), params, rest), graphdef
