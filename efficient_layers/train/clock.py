# SPDX-License-Identifier: Apache-2.0
"""Where the run's wall time goes, so that throughput excludes evaluation and checkpoints."""

import time
from collections.abc import Mapping

ACTIVITIES = ("start", "compile", "input", "step", "evaluate", "checkpoint")


class Clock:
    """Seconds by activity; exactly one activity runs at any time.

    `seconds` continues the totals of an earlier process; `lost` are seconds of work that a crash
    threw away (done after the checkpoint that is resumed from).

    >>> clock = Clock()
    >>> clock.switch("step")
    >>> clock.switch("evaluate")
    """

    def __init__(self, seconds: Mapping[str, float] | None = None, *, lost: float = 0.0) -> None:
        self._seconds = dict.fromkeys((*ACTIVITIES, "lost"), 0.0) | dict(seconds or {})
        self._seconds["lost"] += lost
        self._activity = "start"
        self._since = time.perf_counter()

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
