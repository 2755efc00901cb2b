# SPDX-License-Identifier: Apache-2.0
"""One path for SIGTERM, SIGINT and `--max_runtime_s`: finish the step, save, leave.

The first signal only leaves a note that the loop reads at its next step. The second ends the
process at once, also while the main thread is inside XLA's compiler or a long write, where no
Python handler would run: C code writes the signal's number into a pipe as it arrives
(`signal.set_wakeup_fd`), and a thread that reads the pipe calls `os._exit`.

In a run of several processes, JAX's preemption service owns SIGTERM (it is set up by
`jax.distributed.initialize`) and names a step at which all of them stop; `agreed` asks it. The
other reasons enter by the same door: the process sends SIGTERM to itself.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_PREEMPTED = 75  # saved; run the same command again to go on (sysexits.h: EX_TEMPFAIL)

# `timeout`, process groups and some schedulers deliver one request twice within microseconds.
_SAME_REQUEST_S = 0.3


class Shutdown:
    """Context manager around a run, in the main thread; ask `requested` or `agreed` once a step.

    Args:
        max_runtime_s: seconds from now (monotonic) after which a stop is requested; None: never.

    Raises:
        RuntimeError: entered outside the main thread, where Python takes no signals.
    """

    def __init__(self, *, max_runtime_s: float | None = None) -> None:
        if max_runtime_s is not None and not max_runtime_s >= 0:
            raise ValueError(f"max_runtime_s must be >= 0 seconds. Got {max_runtime_s}.")
        self._deadline = None if max_runtime_s is None else time.monotonic() + max_runtime_s
        self._reason: str | None = None
        self._first_time = 0.0
        self._forwarded = False
        self._previous: dict[int, Any] = {}
        self._pipe: tuple[socket.socket, socket.socket] | None = None
        self._previous_fd = -1

    @property
    def requested(self) -> str | None:
        """`"SIGTERM"`, `"SIGINT"`, `"max_runtime_s"`, or None: go on. Costs under 1 us."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        if late and self._reason is None:
            self._reason = "max_runtime_s"
        return self._reason

    def agreed(self, step: int) -> str | None:
        """`requested`, with the same answer on every process at the same `step`.

        Call it at every step, with the same steps everywhere. One process: plain `requested`.
        """
        reason = self.requested
        if not _several():
            return reason
        if reason is not None and not self._forwarded:
            self._forwarded = True
            os.kill(os.getpid(), signal.SIGTERM)
        if multihost_utils.reached_preemption_sync_point(step):
            return reason or "SIGTERM"
        return None

    def __enter__(self) -> Shutdown:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Shutdown must be entered in the main thread, which gets signals.")
        reader, writer = self._pipe = socket.socketpair()
        writer.setblocking(False)
        threading.Thread(target=self._watch, args=(reader,), name="shutdown", daemon=True).start()
        self._previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        _forget_in_forks()
        owned = (signal.SIGINT,) if _several() else (signal.SIGTERM, signal.SIGINT)
        for number in owned:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()
        if self._pipe is not None:
            self._pipe[1].close()  # the watcher reads end of file and closes its own end
            self._pipe = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        """The Python handler: keeps the default action away. The watcher does the counting."""
        if self._reason is None:
            self._reason = signal.Signals(number).name

    def _watch(self, reader: socket.socket) -> None:
        with reader:
            while numbers := reader.recv(64):
                for number in numbers:
                    if number in (signal.SIGTERM, signal.SIGINT):
                        self._arrived(number)

    def _arrived(self, number: int) -> None:
        now = time.monotonic()
        name = signal.Signals(number).name
        if not self._first_time:
            self._first_time = now
            self._reason = self._reason or name
            _say(f"{name}: the run saves and stops after this step; once more to stop at once.")
        elif now - self._first_time > _SAME_REQUEST_S:
            _say(f"{name} again: stopped at once, without saving.")
            os._exit(128 + number)


@functools.cache
def _forget_in_forks() -> None:
    """A forked child shares the pipe: its signals must not count as its parent's."""
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


def _say(text: str) -> None:
    """Straight to standard error: a lock of `logging` may be held by the interrupted thread."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


def _several() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1
