# SPDX-License-Identifier: Apache-2.0
"""A workdir: one run's configuration, model, environment, checkpoints, metrics and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class WorkdirError(RuntimeError):
    """The workdir cannot be used: the message says why and what to do."""


class WorkdirLockedError(WorkdirError):
    """Another process writes to this workdir."""


class ConfigMismatchError(WorkdirError):
    """The workdir belongs to another configuration; the message shows the difference."""


class Workdir:
    """One run's folder; `create` to write, `open` to read."""

    path: Path
    config: dict[str, Any]
    model: dict[str, Any]
    environment: dict[str, Any]  # {"schema": 1, "runs": [environment of each start, ...]}
    checkpoints: Path
    metrics_path: Path
    log_path: Path
    report_path: Path
    report_html_path: Path

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        config: dict[str, Any],
        model: dict[str, Any],
        environment: dict[str, Any],
        state_bytes: int = 0,
    ) -> Workdir:
        raise NotImplementedError

    @classmethod
    def open(cls, path: str | Path) -> Workdir:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Workdir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
