# SPDX-License-Identifier: Apache-2.0
"""report.json and report.html: everything measured about one model, in one versioned file.

Schema 1, the keys that every report has:

    {"schema": 1, "model": str, "created": str, "config": {...},
     "quality": {"test_accuracy": f, "test_examples": i, ...},
     "cost": {"params": i, "macs": i, "activations": i, "weight_bytes": i, "layers": [...]},
     "latency": {"device": str, "compile_s": f, "batch": {"1": {"median_ms": f, "p10_ms": f,
                 "p90_ms": f, "compile_s": f, "calls": i}, ...}},
     "memory": {...}, "executed": {...}, "training": {...}, "environment": {...}, "history": [...]}
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.measure.cost import cost
from efficient_layers.measure.environment import device_name, environment
from efficient_layers.measure.executed import executed
from efficient_layers.measure.latency import latency
from efficient_layers.measure.memory import memory
from efficient_layers.measure.view import is_array
from efficient_layers.report import run_page

SCHEMA = 1
_SECTIONS = {
    "quality": dict,
    "cost": dict,
    "latency": dict,
    "memory": dict,
    "training": dict,
    "environment": dict,
    "history": list,
}


class ReportError(ValueError):
    """A file is no report, or one of another schema; the message says which and what to do."""


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
    made = {
        "schema": SCHEMA,
        "model": name or _name_of(model),
        "created": surroundings["date"],
        "quality": quality,
        "cost": cost(model, one).to_json(),
        "latency": _latency(model, x, batches),
        "memory": memory(model, one),
        "executed": executed(model, one).to_json(),
        "training": training,
        "environment": surroundings,
        "config": config,
        "history": history,
    }
    return {key: _plain(value) for key, value in made.items() if value is not None}


def write_report(workdir: str | os.PathLike[str], report: Mapping[str, Any]) -> Path:
    """Write report.json and report.html into `workdir` (made if absent); returns the page's path.

    Each file appears whole or not at all. Non-finite numbers become null. Raises `ReportError`
    before anything is written when `report` does not follow the schema.
    """
    plain = _plain(report)
    check(plain, "report")
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "report.json", json.dumps(plain, indent=1, allow_nan=False) + "\n")
    _replace(folder / "report.html", run_page(plain))
    return folder / "report.html"


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The report in a report.json, or in the workdir that holds one.

    Raises FileNotFoundError (with the command that makes a report) and `ReportError` for a file
    that is no report, or of a schema that this version cannot read.
    """
    file = Path(path)
    file = file / "report.json" if file.is_dir() else file
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{file} does not exist: a run writes it at its end. Make it with\n"
            f"    python -m launch.train --config=CONFIG.py --workdir={file.parent}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{file} is no valid JSON ({error}). Make the report again.") from error
    check(found, str(file))
    return dict(found)


def check(report: Any, where: str) -> None:
    """Raise `ReportError` unless `report` follows schema 1; `where` names it in the message."""
    if not isinstance(report, dict) or "schema" not in report:
        raise ReportError(f"{where} is no report: expected a JSON object with the key 'schema'.")
    schema = report["schema"]
    if schema != SCHEMA or isinstance(schema, bool):
        newer = isinstance(schema, int) and schema > SCHEMA
        advice = "Update efficient_layers." if newer else "Make the report again."
        raise ReportError(
            f"{where} has schema {schema!r}; this version reads schema {SCHEMA}. {advice}"
        )
    for key, kind in {"model": str, **_SECTIONS}.items():
        if not isinstance(report.get(key), kind):
            got = type(report[key]).__name__ if key in report else "nothing"
            raise ReportError(f"{where}: {key!r} must be a {kind.__name__}. Got {got}.")


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


def _plain(value: Any) -> Any:
    """`value` as JSON knows it: array scalars unpacked, tuples as lists, non-finite floats null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
