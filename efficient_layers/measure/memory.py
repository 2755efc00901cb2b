# SPDX-License-Identifier: Apache-2.0
"""How many bytes a compiled call needs, from the compiler, the device and the operating system.

`memory_analysis().peak_memory` leaves temporaries out on CPU, so the peak here is the sum of its
parts.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from efficient_layers.measure.program import Program, compiled_view
from efficient_layers.measure.tensors import tensors_of


def memory(model: nnx.Module | Callable | Program, x: Any = None) -> dict[str, Any]:
    """Bytes of one compiled forward pass of `model` on `x`, in eval mode. Compiles, does not run.

    The keys are those of `compiled_memory`, plus `weight_bytes` (the model's state alone), `device`
    (see `device_memory`) and `process_peak_bytes` (see `process_peak_bytes`).
    """
    program = compiled_view(model, x)
    return {
        **compiled_memory(program.compiled),
        "weight_bytes": sum(tensor.weight_bytes for tensor in tensors_of(program.state)),
        "device": device_memory(),
        "process_peak_bytes": process_peak_bytes(),
    }


def compiled_memory(compiled: jax.stages.Compiled) -> dict[str, int | None]:
    """Bytes of a compiled program, such as `jax.jit(step).lower(...).compile()`.

    `peak_bytes` = arguments + outputs + temporaries - aliased (donated arguments reused for
    outputs). All are None where the backend gives no analysis.
    """
    stats = compiled.memory_analysis()
    if stats is None:
        names = ("argument", "output", "temporary", "aliased", "peak")
        return {f"{name}_bytes": None for name in names}
    parts = {
        "argument_bytes": int(stats.argument_size_in_bytes),
        "output_bytes": int(stats.output_size_in_bytes),
        "temporary_bytes": int(stats.temp_size_in_bytes),
        "aliased_bytes": int(stats.alias_size_in_bytes),
    }
    *needed, aliased = parts.values()
    return {**parts, "peak_bytes": sum(needed) - aliased}


def device_memory() -> dict[str, int] | None:
    """The default device's own statistics of this process; None where it keeps none (CPU)."""
    stats = jax.local_devices()[0].memory_stats()
    if not stats:
        return None
    return {name: int(value) for name, value in stats.items() if isinstance(value, int)}


def process_peak_bytes() -> int | None:
    """The most memory this process has occupied so far; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
