# SPDX-License-Identifier: Apache-2.0
"""Everything measured about one model, joined with what its run knows: the contents of report.json.

Schema 1:

    {"schema": 1, "model": str, "created": str, "config": {...},
     "quality": {"test_accuracy": f, "test_examples": i, ...},
     "cost": {"params": i, "macs": i, "activations": i, "weight_bytes": i, "layers": [...]},
     "latency": {"device": str, "compile_s": f, "batch": {"1": {"median_ms": f, "p10_ms": f,
                 "p90_ms": f, "compile_s": f, "calls": i}, ...}},
     "memory": {...}, "executed": {...}, "training": {...}, "environment": {...}, "history": [...]}

and, of a compressed model (`train/run_recipe.py`), "compression": {"phase": str, "rows": [...],
"source": str, "verdict": {...}, "text": str}.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx

from efficient_layers.measure.cost import cost
from efficient_layers.measure.environment import device_name, environment
from efficient_layers.measure.executed import executed
from efficient_layers.measure.latency import latency
from efficient_layers.measure.memory import memory
from efficient_layers.measure.program import compiled_view
from efficient_layers.measure.view import resized
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
    made = {
        "schema": SCHEMA,
        "model": name or _name_of(model),
        "created": surroundings["date"],
        "quality": quality,
        "cost": cost(model, resized(x, 1)).to_json(),
        **_compiled(model, x, batches),
        "training": training,
        "environment": surroundings,
        "config": config,
        "history": history,
    }
    return {key: plain(value) for key, value in made.items() if value is not None}


def _compiled(model: nnx.Module | Callable, x: Any, batches: Sequence[int]) -> dict[str, Any]:
    """The entries "latency", "memory" and "executed"; one compilation for each batch size."""
    program = compiled_view(model, resized(x, 1))
    measured: dict[str, dict[str, Any]] = {}
    for size in sorted(set(batches)):
        runs = program if size == 1 else compiled_view(model, resized(x, size))
        entry = latency(runs).to_json()
        measured[str(size)] = {key: value for key, value in entry.items() if key != "device"}
    compile_s = next(iter(measured.values()))["compile_s"]
    return {
        "latency": {"device": device_name(), "batch": measured, "compile_s": compile_s},
        "memory": memory(program),
        "executed": executed(program).to_json(),
    }


def _name_of(model: nnx.Module | Callable) -> str:
    return getattr(model, "__name__", None) or type(model).__name__
