# SPDX-License-Identifier: Apache-2.0
"""Everything measured about one model, joined with what its run knows: the contents of report.json.

Schema 1:

    {"schema": 1, "model": str, "created": str, "config": {...},
     "quality": {"test_accuracy": f, "test_examples": i, ...},
     "cost": {"params": i, "macs": i, "activations": i, "weight_bytes": i, "layers": [...]},
     "latency": {"device": str, "compile_s": f, "batch": {"1": {"median_ms": f, "p10_ms": f,
                 "p90_ms": f, "compile_s": f, "calls": i}, ...}},
     "memory": {...}, "executed": {...}, "training": {...}, "environment": {...}, "history": [...]}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.measure.cost import cost
from efficient_layers.measure.environment import device_name, environment
from efficient_layers.measure.executed import of_compiled
from efficient_layers.measure.latency import latency
from efficient_layers.measure.memory import compiled_memory, device_memory, process_peak_bytes
from efficient_layers.measure.view import is_array, pure
from efficient_layers.report.file import SCHEMA, ReportError, plain, read_report, write_report

__all__ = ["ReportError", "read_report", "report", "write_report"]


def report(
    model: nnx.Module | Callable,
    x: Any,
    *,
    quality: Mapping[str, Any],
    training: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    batches: Sequence[int] = (1, 16),
    config: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Measure `model` and join the result with what the run knows. JSON-able; nothing is written.

    Args:
      model: a module (left as it is; measured in eval mode) or any function of arrays.
      x: an example input with a leading batch axis of any size; cost and memory are for one
        example, latency for each size in `batches` (rows repeated to fill it).
      quality: what evaluation found; `test_examples` beside `test_accuracy` gives its interval.
      training: seconds, examples_per_s, steps, mfu, input_wait, ...
      history: records with "step" and metrics (`train/loss`, `validation/accuracy`, ...).
      name: the model's name on the page; its class where None.

    Raises ValueError when `batches` is empty or holds a size below 1.
    """
    if not batches or min(batches) < 1:
        raise ValueError(f"report() needs batch sizes of at least 1. Got batches={batches!r}.")
    surroundings = environment()
    one = _batch(x, 1)
    counted = cost(model, one).to_json()
    made = {
        "schema": SCHEMA,
        "model": name or _name_of(model),
        "created": surroundings["date"],
        "quality": quality,
        "cost": counted,
        "latency": _latency(model, x, batches),
        **_compiled(model, one, counted["weight_bytes"]),
        "training": training,
        "environment": surroundings,
        "config": config,
        "history": history,
    }
    return {key: plain(value) for key, value in made.items() if value is not None}


def _compiled(model: nnx.Module | Callable, x: Any, weight_bytes: int) -> dict[str, Any]:
    """The entries "memory" and "executed" (`measure.memory`, `measure.executed`) by one compile."""
    function = pure(model, x)
    compiled = jax.jit(function.apply).lower(function.state, function.arrays).compile()
    memory = {
        **compiled_memory(compiled),
        "weight_bytes": weight_bytes,
        "device": device_memory(),
        "process_peak_bytes": process_peak_bytes(),
    }
    return {"memory": memory, "executed": of_compiled(compiled).to_json()}


def _latency(model: nnx.Module | Callable, x: Any, batches: Sequence[int]) -> dict[str, Any]:
    measured: dict[str, dict[str, Any]] = {}
    for size in sorted(set(batches)):
        entry = latency(model, _batch(x, size)).to_json()
        measured[str(size)] = {key: value for key, value in entry.items() if key != "device"}
    first = next(iter(measured.values()))
    return {"device": device_name(), "batch": measured, "compile_s": first["compile_s"]}


def _batch(x: Any, size: int) -> Any:
    """`x` with a leading axis of `size`: its rows, repeated as often as needed."""

    def resize(leaf: Any) -> Any:
        if not is_array(leaf) or leaf.ndim == 0:
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype)
        return jnp.take(jnp.asarray(leaf), np.arange(size) % leaf.shape[0], axis=0)

    return jax.tree.map(resize, x)


def _name_of(model: nnx.Module | Callable) -> str:
    return getattr(model, "__name__", None) or type(model).__name__
