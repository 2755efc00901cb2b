# SPDX-License-Identifier: Apache-2.0
"""Names in a configuration -> objects: data, model, objective, optimiser, mesh, steps.

Everything a user can get wrong is checked here, before a workdir is made or a step compiled.
"""

import dataclasses
import functools
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array
from ml_collections import ConfigDict

from efficient_layers import measure, models
from efficient_layers.train import duration, mesh
from efficient_layers.train.init_from import init_from
from efficient_layers.train.input import Input, make_input
from efficient_layers.train.metrics import SINKS
from efficient_layers.train.objective import make_objective
from efficient_layers.train.optimizer import optimizer, optimizer_settings
from efficient_layers.train.precision import Policy
from efficient_layers.train.sparsity import sparse
from efficient_layers.train.state import Arrays, TrainState, merge, split
from efficient_layers.train.step import Guard, Objective, Step, step


@dataclasses.dataclass(frozen=True)
class Options:
    """How far and where a run goes; no part of its configuration, so a resume may change them."""

    stop_after_steps: int | None = None
    overfit_batches: int = 0
    max_runtime_s: float | None = None
    target: str = ""
    stop_at_target: bool = False
    smoke: bool = False
    read_test: bool = True  # False: a phase of a recipe that is not its last
    stand_in: bool = False  # data of the same shape instead of the data set, at full batch size


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a run is made of; built from a configuration by `build`."""

    config: ConfigDict
    input: Input
    description: dict[str, Any]  # model.json
    loaded: tuple[str, ...]  # what came from config.init_from and what did not, in lines
    graphdef: nnx.GraphDef
    params: Arrays
    rest: Arrays
    objective: Objective
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    step: Step
    guard: Guard
    policy: Policy
    mesh: Mesh
    steps_per_epoch: float
    total_steps: int

    def steps(self, value: int | str) -> int:
        """A duration of the configuration in optimiser steps, at least 1."""
        return max(
            1,
            duration.steps(
                value,
                steps_per_epoch=self.steps_per_epoch,
                batch_size=self.config.data.batch_size,
                total_steps=self.total_steps,
            ),
        )

    def init(self) -> TrainState:
        """The state before the first step, on one device."""
        ema = self.config.train.ema_decay > 0
        return jax.jit(lambda p, r: TrainState.create(p, r, self.tx, ema=ema))(
            self.params, self.rest
        )

    def shardings(self, state: Any) -> Any:
        """Where each array of the state lives on the mesh."""
        config = self.config
        return mesh.state_shardings(
            state, self.mesh, tuple(config.sharding_rules), min_size=config.fsdp_min_size
        )

    @property
    def summary(self) -> str:
        """The run in a line."""
        name, cost = self.description["create"]["name"], self.cost
        return (
            f"{name} with {cost.params:,} parameters and {cost.macs:,} MACs an example on "
            f"{self.input.info.name}, batch {self.input.batch_size}, {self.mesh.size} device(s)"
        )

    @functools.cached_property
    def cost(self) -> measure.Cost:
        """Parameters, MACs and activations of one example."""
        return measure.cost(merge(self.graphdef, self.params, self.rest), self.input.example())

    @property
    def key(self) -> Array:
        """The run's key; the step folds its number into it, so it is never stored."""
        return jax.random.key(self.config.seed)


def build(config: ConfigDict, options: Options = Options()) -> Experiment:
    """The experiment that `config` describes.

    Raises ValueError for what does not fit together, and each room's own errors.
    """
    _check(config)
    device_mesh = mesh.make_mesh(config.mesh)
    mesh.check_batch(config.data.batch_size, device_mesh)
    inputs = make_input(
        config,
        smoke=options.smoke,
        stand_in=options.stand_in,
        overfit_batches=options.overfit_batches,
    )
    mesh.check_batch(inputs.eval_batch_size, device_mesh)
    steps_per_epoch = len(inputs.train) / inputs.batch_size
    total = duration.steps(
        config.train.duration, steps_per_epoch=steps_per_epoch, batch_size=inputs.batch_size
    )
    policy = Policy.parse(config.train.precision)
    model, description = _model(config, inputs, policy)
    lines: list[str] = []
    if config.init_from:
        model, description, lines = init_from(model, config.init_from, description)
    graphdef, params, rest = split(model)
    tx, schedule = optimizer(
        optimizer_settings(config.optimizer.to_dict()),
        total_steps=total,
        steps_per_epoch=steps_per_epoch,
        batch_size=inputs.batch_size,
    )
    in_steps = functools.partial(
        duration.steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=inputs.batch_size,
        total_steps=total,
    )
    zeros = description.get("keep_zeros", False)
    tx = sparse(tx, config.sparsity.to_dict(), in_steps, keep_zeros=zeros)
    if config.sparsity.name:  # who goes on from this run has zeros to keep
        description["keep_zeros"] = True
    objective = make_objective(config.objective)
    guard = Guard(**config.train.guard)
    return Experiment(
        config=config,
        input=inputs,
        description=description,
        loaded=tuple(lines),
        graphdef=graphdef,
        params=params,
        rest=rest,
        objective=objective,
        tx=tx,
        schedule=schedule,
        step=step(
            objective,
            tx,
            graphdef,
            schedule=schedule,
            accumulate=config.train.accumulate,
            ema_decay=config.train.ema_decay,
            guard=guard,
        ),
        guard=guard,
        policy=policy,
        mesh=device_mesh,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
    )


def _check(config: ConfigDict) -> None:
    if config.train.select not in ("last", "best"):
        raise ValueError(f"train.select must be 'last' or 'best'; got {config.train.select!r}")
    for name in config.train.log_to:
        if name not in SINKS:
            raise ValueError(f"train.log_to knows {', '.join(SINKS)}; got {name!r}")
    accumulate, batch = config.train.accumulate, config.data.batch_size
    if accumulate < 1 or batch % accumulate:
        raise ValueError(f"train.accumulate must divide data.batch_size={batch}; got {accumulate}")
    if not 0 <= config.train.ema_decay < 1:
        raise ValueError(f"train.ema_decay must be in [0, 1); got {config.train.ema_decay}")


def _model(config: ConfigDict, inputs: Input, policy: Policy) -> tuple[nnx.Module, dict[str, Any]]:
    """The model, with the fields that follow from the data where the configuration is silent."""
    fields = {name: value for name, value in config.model.items() if name != "name"}
    known = models.describe(config.model.name)["fields"]
    fields = {name: value for name, value in _of_data(inputs).items() if name in known} | fields
    try:
        create = models.describe(config.model.name, **fields)
    except TypeError as error:  # a field's name or type: the user's to mend
        raise ValueError(f"config.model: {error}") from None
    description = {"create": create, "edits": []}
    model = models.create(config.model.name, **fields, rngs=nnx.Rngs(config.seed))
    policy.apply(model)
    model.train()
    return model, description


def _of_data(inputs: Input) -> dict[str, Any]:
    """The fields of a model that its data decide."""
    info, shape = inputs.info, inputs.image_shape
    if not info.vocabulary:
        classes = {"num_classes": info.num_classes}
        return classes | {"in_channels": shape[-1], "image_size": shape[0], "length": shape[0]}
    fields = {"vocabulary": info.vocabulary}
    return fields | ({"num_classes": info.num_classes} if info.num_classes else {})
