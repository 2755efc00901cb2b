# SPDX-License-Identifier: Apache-2.0
"""The step, lowered and compiled once ahead of time for one batch shape and one mesh."""

import os
from typing import Any

import jax

from efficient_layers.ops.compiler_options import compiler_options
from efficient_layers.train import mesh as meshes
from efficient_layers.train.experiment import Experiment
from efficient_layers.train.state import template


def lower_step(experiment: Experiment, state: Any) -> jax.stages.Lowered:
    """The donating, sharded step for `state` (arrays or abstract).

    The compiled program takes exactly these shapes: another batch is an error, never a recompile.
    """
    replicated = meshes.replicated(experiment.mesh)
    shardings = experiment.shardings(state)
    split = meshes.batch_sharding(experiment.mesh)
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=split)
        for name, (shape, dtype) in experiment.input.batch_spec().items()
    }
    key = jax.ShapeDtypeStruct((), experiment.key.dtype, sharding=replicated)
    jitted = jax.jit(
        experiment.step,
        donate_argnums=0,
        out_shardings=(shardings, replicated),
        compiler_options=compiler_options(),
    )
    return jitted.lower(template(state, shardings), batch, key)


def use_compilation_cache(folder: str | os.PathLike[str]) -> None:
    """Keeps compiled programs in `folder` between processes, however small they are."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
