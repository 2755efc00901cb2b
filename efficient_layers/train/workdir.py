# SPDX-License-Identifier: Apache-2.0
"""A workdir: one run's configuration, model, environment, checkpoints, metrics and report.

    config.json        {"schema": 1, "config": {...}}             the resolved configuration
    model.json         {"schema": 1, "create": {...}, "edits": []}  how the model is built
    environment.json   {"schema": 1, "runs": [...]}               versions and devices of each start
    checkpoints/       metrics.jsonl  log.txt  report.json  report.html
    lock               held by the one writer; says who it is

All of it is JSON, text and arrays: reading one executes and unpickles nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from efficient_layers.train import disk

_log = logging.getLogger(__name__)
SCHEMA = 1
_ABSENT = "(absent)"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # file systems without flock


class WorkdirError(disk.DiskError):
    """The workdir cannot be used; the message says why and what to do."""


class WorkdirLockedError(WorkdirError):
    """Another process writes to this workdir."""


class ConfigMismatchError(WorkdirError):
    """The workdir belongs to another configuration; the message shows the difference."""


class Workdir:
    """One run's folder: `create` to write to it, `open` to read it. A context manager."""

    def __init__(
        self,
        path: Path,
        *,
        config: dict[str, Any],
        model: dict[str, Any],
        environment: dict[str, Any],
        lock: TextIO | None = None,
    ) -> None:
        self.path = path
        self.config = config
        self.model = model
        self.environment = environment  # {"runs": [environment of each start]}
        self._lock = lock
        self.checkpoints = path / "checkpoints"
        self.metrics_path = path / "metrics.jsonl"
        self.log_path = path / "log.txt"
        self.report_path = path / "report.json"
        self.report_html_path = path / "report.html"

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        config: Mapping[str, Any],
        model: Mapping[str, Any],
        environment: Mapping[str, Any],
        may_change: Collection[str] = (),
        state_bytes: int = 0,
    ) -> Workdir:
        """Make the folder, or go on in it: locked, proven writable, of the same configuration.

        In a run of several processes, process 0 calls this and the others `open`.

        Args:
            config, model, environment: JSON values.
            may_change: dotted keys of `config` that may differ between restarts
                (`"train.stop_after_steps"`); a prefix covers what is under it.
            state_bytes: bytes of the training state; three checkpoints of it must fit.

        Raises:
            DiskError: not a folder, no permission, read-only, full.
            WorkdirLockedError: another process has it open for writing.
            ConfigMismatchError: it holds another configuration or model.
        """
        path = Path(path).absolute()
        disk.probe(path, 3 * state_bytes)
        lock = _take_lock(path / "lock")
        try:
            new_config, new_model = _as_json(dict(config)), _as_json(dict(model))
            _require_same(path, new_config, new_model, may_change)
            runs = [*_runs(path), _as_json(dict(environment))]
            disk.write_json(path / "environment.json", {"schema": SCHEMA, "runs": runs})
            disk.write_json(path / "model.json", {"schema": SCHEMA, **new_model})
            disk.write_json(path / "config.json", {"schema": SCHEMA, "config": new_config})
            (path / "checkpoints").mkdir(exist_ok=True)
        except BaseException:
            lock.close()
            raise
        return cls(path, config=new_config, model=new_model, environment={"runs": runs}, lock=lock)

    @classmethod
    def open(cls, path: str | Path) -> Workdir:
        """Read-only, without the lock, also while a run writes to it.

        Raises:
            WorkdirError: no such folder, files missing or unreadable, written by a newer version.
        """
        path = Path(path).absolute()
        if not path.is_dir():
            what = "is a file, not a workdir" if path.exists() else "does not exist"
            raise WorkdirError(f"{path} {what}. A workdir is written by launch.train --workdir.")
        names = ("config.json", "model.json", "environment.json", "checkpoints")
        missing = [name for name in names if not (path / name).exists()]
        if missing:
            raise WorkdirError(
                f"{path} is not a complete workdir: {', '.join(missing)} missing. Was it written "
                "by launch.train, and copied whole?"
            )
        model = _read(path / "model.json")
        del model["schema"]
        environment = {"runs": _runs(path)}
        return cls(path, config=_config(path), model=model, environment=environment)

    def close(self) -> None:
        """Give the lock back. Nothing else is held."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Workdir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    """`value` as it will be read back (tuples become lists)."""
    try:
        result: dict[str, Any] = json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"A workdir holds JSON values only: {error}.") from None
    return result


def _read(path: Path) -> dict[str, Any]:
    try:
        document = disk.read_json(path)
    except disk.DiskError as error:
        raise WorkdirError(f"{error} Restore it from a copy, or use a new workdir.") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, int):
        raise WorkdirError(f"{path} is no file of a workdir: it has no schema number.")
    if schema > SCHEMA:
        raise WorkdirError(
            f"{path} was written by a newer efficient_layers (schema {schema}; this version reads "
            f"up to {SCHEMA}). Update the library."
        )
    return document


def _entry(path: Path, key: str, kind: type) -> Any:
    value = _read(path).get(key)
    if not isinstance(value, kind):
        raise WorkdirError(f"{path} has no {key!r} of type {kind.__name__}.")
    return value


def _config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = _entry(path / "config.json", "config", dict)
    return config


def _runs(path: Path) -> list[dict[str, Any]]:
    file = path / "environment.json"
    runs: list[dict[str, Any]] = _entry(file, "runs", list) if file.exists() else []
    return runs


def _require_same(
    path: Path, config: dict[str, Any], model: dict[str, Any], may_change: Collection[str]
) -> None:
    """Raise `ConfigMismatchError` where `path` holds another configuration or model."""
    lines: list[str] = []
    if (path / "config.json").exists():
        lines += _difference("config", _config(path), config, may_change)
    if (path / "model.json").exists():
        old = _read(path / "model.json")
        lines += _difference("model", old, {"schema": old["schema"], **model}, ())
    if lines:
        raise ConfigMismatchError(
            f"{path} holds a run of another configuration (there -> here):\n"
            + "\n".join(lines)
            + "\nUse a new --workdir, or give the values on the left to go on with that run."
        )


def _difference(
    title: str, old: dict[str, Any], new: dict[str, Any], may_change: Collection[str]
) -> list[str]:
    before, after = dict(_leaves(old)), dict(_leaves(new))
    changed = [
        key
        for key in sorted(before.keys() | after.keys())
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
        and not any(key == free or key.startswith(f"{free}.") for free in may_change)
    ]
    return [
        f"  {title}.{key}: {before.get(key, _ABSENT)} -> {after.get(key, _ABSENT)}"
        for key in changed
    ]


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and JSON text of every leaf; lists are leaves."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, json.dumps(value)


def _take_lock(path: Path) -> TextIO:
    """The open lock file. The kernel drops the lock when its holder dies, however it dies."""
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise WorkdirError(f"{path} cannot be opened: {error.strerror}.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            holder = _holder(file)
            file.close()
            raise WorkdirLockedError(
                f"{path.parent} is in use by {holder}. Wait for it or stop it, or choose another "
                "workdir. A lock never outlives its process: there is nothing to delete."
            ) from error
        _log.warning("%s: this file system has no locks; make sure of one writer", path.parent)
    file.truncate(0)
    who = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}
    file.write(json.dumps(who) + "\n")
    file.flush()
    os.register_at_fork(after_in_child=lambda: _drop(file))
    return file


def _holder(file: TextIO) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        file.seek(0)
        who = json.loads(file.read())
        return f"process {who['pid']} on {who['host']}"
    return "another process"


def _drop(file: TextIO) -> None:
    """In a forked worker: a child that outlives the run must not keep the lock."""
    with contextlib.suppress(OSError, ValueError):
        file.close()
