# SPDX-License-Identifier: Apache-2.0
"""report.json and report.html on disk: written whole or not at all, checked when read.

The schema is described in `efficient_layers.measure.report`, which makes reports.
"""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

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


def write_report(workdir: str | os.PathLike[str], report: Mapping[str, Any]) -> Path:
    """Write report.json and report.html into `workdir` (made if absent); returns the page's path.

    Each file appears whole or not at all. Non-finite numbers become null. Raises `ReportError`
    before anything is written when `report` does not follow the schema.
    """
    from efficient_layers.report.run import run_page

    clean = plain(report)
    check(clean, "report")
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "report.json", json.dumps(clean, indent=1, allow_nan=False) + "\n")
    _replace(folder / "report.html", run_page(clean))
    return folder / "report.html"


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The report in a report.json, or in the workdir that holds one.

    Raises FileNotFoundError (with the command that makes a report) and `ReportError` for a file
    that is no report, or of a schema that this version cannot read.
    """
    file = Path(path)
    file = file if file.suffix == ".json" else file / "report.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
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


def section(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part of a report that should be an object; empty where it is absent or something else."""
    part = report.get(name)
    return part if isinstance(part, dict) else {}


def plain(value: Any) -> Any:
    """`value` as JSON knows it: array scalars unpacked, tuples as lists, non-finite floats null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "__array__"):  # NumPy's and JAX's, scalars included
        return plain(np.asarray(value).tolist())
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
