# SPDX-License-Identifier: Apache-2.0
"""What a run would do, without doing it: shapes, shardings, cost, memory."""

import dataclasses
import io

import jax
import rich.console
import rich.table
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from efficient_layers import measure
from efficient_layers.data import MissingDataError
from efficient_layers.train.compile import lower_step
from efficient_layers.train.experiment import Experiment, Options, build
from efficient_layers.train.mesh import array_name


def dry_run(config: ConfigDict, options: Options = Options()) -> str:
    """A page of text: the step is compiled for its memory, nothing is trained or written.

    A data set that is not prepared is replaced by stand-in data of its shape, which the page says.
    """
    note = ""
    try:
        experiment = build(config, options)
    except MissingDataError as error:
        experiment = build(config, dataclasses.replace(options, stand_in=True))
        note = f"Stand-in data, so numbers of examples and steps are not the real ones: {error}\n"
    state = jax.eval_shape(experiment.init)
    page = io.StringIO()
    console = rich.console.Console(width=120, file=page)
    console.print(_arrays(experiment, state))
    console.print(_facts(experiment, state))
    return page.getvalue() + note


def _arrays(experiment: Experiment, state: object) -> rich.table.Table:
    table = rich.table.Table("array", "shape", "dtype", "sharding", title="State")
    shardings = jax.tree.leaves(experiment.shardings(state))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    for (path, leaf), where in zip(leaves, shardings, strict=True):
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        table.add_row(array_name(path), shape, leaf.dtype.name, _spec(where.spec))
    return table


def _spec(spec: PartitionSpec) -> str:
    """The mesh axes that split each dimension: `fsdp, -`; or `replicated`."""
    return ", ".join(str(axes or "-") for axes in spec) or "replicated"


def _facts(experiment: Experiment, state: object) -> rich.table.Table:
    cost, inputs = experiment.cost, experiment.input
    compiled = lower_step(experiment, state).compile()
    peak = measure.compiled_memory(compiled)["peak_bytes"] or 0
    rows = {
        "model": experiment.description["create"]["name"],
        "parameters": f"{cost.params:,}",
        "MACs an example (forward)": f"{cost.macs:,}",
        "activations an example": f"{cost.activations:,}",
        "weight bytes": f"{cost.weight_bytes:,}",
        "examples (train, validation, test)": ", ".join(map(str, inputs.info.sizes.values())),
        "batch": f"{inputs.batch_size} x {'x'.join(map(str, inputs.example().shape[1:]))}",
        "steps": f"{experiment.total_steps:,} ({experiment.steps_per_epoch:.1f} an epoch)",
        "mesh": f"{experiment.config.mesh} on {experiment.mesh.size} device(s)",
        "step memory a device": f"{peak / 2**20:,.1f} MiB (arguments + outputs + temporaries)",
    }
    table = rich.table.Table("what", "value", title="Run")
    for what, value in rows.items():
        table.add_row(what, value)
    return table
