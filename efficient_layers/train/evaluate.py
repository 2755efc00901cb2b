# SPDX-License-Identifier: Apache-2.0
"""Evaluation: each example once, averaged over the mask, fetched once at the end."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from efficient_layers.compress import apply_masks, has_masks
from efficient_layers.train.optimizer import eval_params
from efficient_layers.train.state import Arrays, TrainState, merge
from efficient_layers.train.step import Batch, Metrics, Objective

EvalStep = Callable[[Arrays, Batch], Metrics]


def eval_step(objective: Objective, graphdef: nnx.GraphDef) -> EvalStep:
    """`(arrays, batch) -> metric sums`, jitted; `arrays` is all the model's state by path.

    The sums are the objective's means times the number of unmasked examples, and `"examples"`.
    """

    @jax.jit
    def run(arrays: Arrays, batch: Batch) -> Metrics:
        model = merge(graphdef, arrays)
        model.eval()
        loss, metrics = objective(model, batch, None)
        count = jnp.sum(batch["mask"])
        # A batch of padding alone (an uneven last shard) may divide by zero: it counts nothing.
        sums = {name: jnp.where(count > 0, value * count, 0.0) for name, value in metrics.items()}
        return {**sums, "loss": jnp.where(count > 0, loss * count, 0.0), "examples": count}

    return run


def metric_names(experiment: Any) -> list[str]:
    """The names that an evaluation of `experiment` gives, without computing anything."""
    spec = experiment.input.batch_spec()
    batch = {name: jax.ShapeDtypeStruct(*of) for name, of in spec.items()}
    mask = jax.ShapeDtypeStruct((experiment.input.batch_size,), jnp.float32)
    run = eval_step(experiment.objective, experiment.graphdef)
    sums = jax.eval_shape(run, {**experiment.params, **experiment.rest}, batch | {"mask": mask})
    return sorted(sums.keys() - {"examples"})


def evaluate(
    run: EvalStep,
    arrays: Arrays,
    batches: Iterable[dict[str, Any]],
    put: Callable[[dict[str, Any]], Batch],
) -> dict[str, float]:
    """Means over all unmasked examples of `batches`, and their number as `"examples"`.

    Raises ValueError where there is no example.
    """
    sums = [run(arrays, put(batch)) for batch in batches]
    fetched = jax.device_get(sums)
    count = sum(float(row["examples"]) for row in fetched)
    if not count:
        raise ValueError("evaluation needs at least one example; got none")
    names = fetched[0].keys() - {"examples"}
    means = {name: sum(float(row[name]) for row in fetched) / count for name in sorted(names)}
    return {**means, "examples": count}


def weights(state: TrainState) -> Arrays:
    """What a run would ship at this state: the average where one is kept, else the weights.

    Where the optimiser keeps weights at zero, those of the average are zero, too.
    """
    if not state.ema:
        return {**eval_params(state.opt_state, state.params), **state.rest}
    return _masked(state.opt_state, state.ema) if has_masks(state.opt_state) else state.ema


_masked = jax.jit(apply_masks)


def put_on(sharding: Any) -> Callable[[dict[str, Any]], Batch]:
    """Host batch -> device batch under `sharding`; the `"index"` of the rows stays on the host."""

    def put(batch: dict[str, Any]) -> dict[str, Array]:
        arrays = {name: value for name, value in batch.items() if name != "index"}
        if jax.process_count() == 1:
            return jax.device_put(arrays, sharding)
        return jax.tree.map(
            lambda value: jax.make_array_from_process_local_data(sharding, value), arrays
        )

    return put
