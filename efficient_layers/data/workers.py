# SPDX-License-Identifier: Apache-2.0
"""How data worker processes start and end: deaf to SIGTERM, never outliving their trainer.

A job that is told to stop gets SIGTERM in every process; the trainer answers (it saves), and needs
its workers until it has. A trainer that is killed outright cannot tell them, so each watches for
its parent's end. Workers never touch a JAX device: what they run is NumPy.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def initialise(index: int, count: int) -> None:
    """Run first in worker `index` of `count`: ignore stop signals, end when the parent has."""
    del index, count
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    os._exit(1)


@contextmanager
def stop_signals_held() -> Iterator[None]:
    """Hold stop signals back in this thread while workers start.

    A process inherits the signal mask, so a worker that has not come to `initialise` yet (it
    imports for seconds) is not killed by a SIGTERM sent to the whole group. The trainer itself
    receives the signal when the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
