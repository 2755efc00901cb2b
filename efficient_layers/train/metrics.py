# SPDX-License-Identifier: Apache-2.0
"""Numbers of a run: one JSON line a record in metrics.jsonl, a CSV of them at the end.

A record is `{"step": 40, "loss": 0.31, ...}`. A line is written by one call; after a crash only
the last can be torn, and the next opening removes it. Floats come back bit-equal; JSON has no NaN
and infinities, so they are the strings "NaN", "Infinity", "-Infinity".
"""

import csv
import errno
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Sink(Protocol):
    """Somewhere else that records go: TensorBoard, Weights & Biases."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One record."""

    def close(self) -> None:
        """Flushes and ends."""


class MetricsWriter:
    """The one writer of a run's metrics; a context manager.

    Args:
      path: the JSONL file; it is continued where it exists, its torn last line removed.
      also: sinks that get every record too.
    """

    def __init__(self, path: str | os.PathLike[str], *, also: Iterable[Sink] = ()) -> None:
        self.path = pathlib.Path(path)
        self._also = list(also)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _repair(self.path)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one record; values are numbers or arrays of one element.

        Raises:
          TypeError: a value is no number.
          OSError: the disk is full or the file cannot be written.
        """
        record = {"step": int(step)} | {name: _number(name, v) for name, v in values.items()}
        line = json.dumps({name: _encode(v) for name, v in record.items()}, allow_nan=False)
        data = line.encode() + b"\n"
        try:
            written = self._file.write(data)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(self.path)) from error
        if written != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        for sink in self._also:
            sink.write(int(step), {n: v for n, v in record.items() if n != "step"})

    def truncate_after(self, step: int) -> int:
        """Drops the records of steps beyond `step` (a resume repeats them); their number."""
        records = read(self.path)
        keep = [r for r in records if r["step"] <= step]
        if len(keep) < len(records):
            lines = [json.dumps({n: _encode(v) for n, v in r.items()}) + "\n" for r in keep]
            temporary = self.path.with_name(self.path.name + ".part")
            temporary.write_text("".join(lines))
            self._file.close()
            os.replace(temporary, self.path)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        return len(records) - len(keep)

    def close(self) -> None:
        """Writes the CSV beside the JSONL file and closes everything; twice does no harm."""
        if self._file.closed:
            return
        self._file.close()
        write_csv(read(self.path), self.path.with_suffix(".csv"))
        for sink in self._also:
            sink.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Every whole record of a JSONL file, in order; a torn last line is left out.

    Raises:
      ValueError: a line before the last is not a record; its number is named.
    """
    path = pathlib.Path(path)
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}, line {number} is not a metrics record: {line[:80]!r}"
            ) from error
        records.append({name: _decode(v) for name, v in record.items()})
    return records


def write_csv(records: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """A table with a row a step (records of one step side by side) and a column a metric."""
    rows: dict[int, dict[str, Any]] = {}
    columns = {"step": None}
    for record in records:
        rows.setdefault(record["step"], {}).update(record)
        columns |= dict.fromkeys(record)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))


def _repair(path: pathlib.Path) -> None:
    """Cuts the file after its last newline: what a killed process left of a line goes."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)


def _number(name: str, value: Any) -> int | float:
    if value is None or isinstance(value, str | bytes) or np.size(value) != 1:
        raise TypeError(f"metric {name!r} must be one number. Got {value!r}.")
    item = np.asarray(value).reshape(()).item()
    if not isinstance(item, int | float):
        raise TypeError(f"metric {name!r} must be a real number. Got {value!r}.")
    return item


def _encode(value: int | float) -> int | float | str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _decode(value: Any) -> Any:
    return _SPECIAL.get(value, value) if isinstance(value, str) else value


class TensorBoard:
    """A sink that writes TensorBoard event files to `logdir` (package tensorboardX)."""

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        try:
            import tensorboardX
        except ImportError as error:
            raise _missing("TensorBoard", "tensorboardX") from error
        self._writer = tensorboardX.SummaryWriter(str(logdir))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar a metric."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and ends."""
        self._writer.close()


class WandB:
    """A sink that logs to Weights & Biases; `options` go to `wandb.init`."""

    def __init__(self, **options: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("Weights & Biases", "wandb") from error
        self._run = wandb.init(**options)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One record."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


SINKS: dict[str, Callable[[str], Sink]] = {
    "tensorboard": lambda folder: TensorBoard(pathlib.Path(folder) / "tensorboard"),
    "wandb": lambda folder: WandB(dir=folder),
}


def _missing(what: str, package: str) -> ImportError:
    return ImportError(
        f"metrics to {what} need the package {package}, which is not installed: "
        f'pip install {package}   (or the extra: pip install "efficient_layers[logging]")'
    )
