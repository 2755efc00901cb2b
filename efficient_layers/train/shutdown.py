# SPDX-License-Identifier: Apache-2.0
"""One path for SIGTERM, SIGINT and `--max_runtime_s`: finish the step, save, leave."""

from __future__ import annotations

EXIT_PREEMPTED = 75  # saved; run the same command again to go on (sysexits' EX_TEMPFAIL)


class Shutdown:
    """Context manager; ask `requested` once a step."""

    def __init__(self, *, max_runtime_s: float | None = None) -> None:
        raise NotImplementedError

    @property
    def requested(self) -> str | None:
        raise NotImplementedError

    def agreed(self, step: int) -> str | None:
        """Like `requested`, but the same answer on every process (multi-process runs)."""
        raise NotImplementedError

    def __enter__(self) -> Shutdown:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError
