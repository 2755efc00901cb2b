# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: asynchronous saves, what is kept, and a restore that never trusts a file blindly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PyTree = Any


class CheckpointError(RuntimeError):
    """A checkpoint is missing, unreadable or could not be written."""


class CheckpointMismatchError(ValueError):
    """The saved tree and the asked-for tree differ; the message lists every entry by its path."""


class Checkpointer:
    """Saves and restores `checkpoints/<step>/`; see the methods."""

    def __init__(
        self,
        directory: Path,
        *,
        temporary_every_s: float = 300.0,
        permanent_every_steps: int | None = None,
        best_metric: str | None = None,
        best_mode: str = "max",
        read_only: bool = False,
    ) -> None:
        raise NotImplementedError

    def due(self, step: int) -> bool:
        raise NotImplementedError

    def save(
        self,
        step: int,
        state: PyTree,
        extra: dict[str, Any],
        *,
        metrics: dict[str, float] | None = None,
        force: bool = False,
    ) -> None:
        raise NotImplementedError

    def wait(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def steps(self) -> list[int]:
        raise NotImplementedError

    def best_step(self) -> int | None:
        raise NotImplementedError

    def latest_step(self) -> int | None:
        raise NotImplementedError

    def restore(
        self, template: PyTree, *, step: int | str = "latest"
    ) -> tuple[int, PyTree, dict[str, Any]]:
        raise NotImplementedError

    def read(self, step: int | str = "latest") -> tuple[int, dict[str, Any], dict[str, Any]]:
        raise NotImplementedError

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
