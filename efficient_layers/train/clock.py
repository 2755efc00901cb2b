# SPDX-License-Identifier: Apache-2.0
"""Where the run's wall time goes, so that throughput excludes evaluation and checkpoints."""

import time
from collections.abc import Mapping

ACTIVITIES = ("start", "compile", "input", "step", "evaluate", "checkpoint")


class Clock:
    """Seconds by activity; exactly one activity runs at any time.

    >>> clock = Clock()
    >>> clock.switch("step")
    >>> clock.switch("evaluate")
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys((*ACTIVITIES, "lost"), 0.0)
        self._activity = "start"
        self._since = time.perf_counter()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Counts the totals of earlier processes of this run too.

        `lost` are seconds of work that a crash threw away, after the checkpoint resumed from.
        """
        for activity, value in seconds.items():
            self._seconds[activity] += value

    def switch(self, activity: str) -> None:
        """From now on time counts for `activity`."""
        now = time.perf_counter()
        self._seconds[self._activity] += now - self._since
        self._activity, self._since = activity, now

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds so far by activity, the running one included."""
        self.switch(self._activity)
        return dict(self._seconds)

    @property
    def elapsed(self) -> float:
        """All seconds of all processes of this run."""
        return sum(self.seconds.values())


def goodput(seconds: Mapping[str, float]) -> float:
    """Share of the run's time, restarts included, in which kept training steps ran."""
    total = sum(seconds.values())
    return seconds["step"] / total if total else 0.0
