# SPDX-License-Identifier: Apache-2.0
"""Where a run stands: a bar with the time left on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import rich.console
import rich.progress


class Progress:
    """A context manager around the loop; `update` after each logged step.

    On a terminal the bar moves at once. Elsewhere (a file, CI, SLURM) a line is written for an
    update when at least `every_s` seconds have passed since the last one, and for the last step.

        with Progress(total_steps, start_step) as progress:
            progress.update(step, {"loss": 0.31})
            progress.message("checkpoint at step 400")
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        stream: TextIO | None = None,
        *,
        every_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_steps, self.start_step = total_steps, start_step
        self._stream = stream or sys.stderr
        self._every_s, self._clock = every_s, clock
        self._began = self._last = -float("inf")
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> "Progress":
        self._began = self._clock()
        if self._stream.isatty():
            self._bar = self._make_bar()
            self._bar.start()
            self._task = self._bar.add_task(
                "", total=self.total_steps, completed=self.start_step, metrics=""
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """`step` steps are done; `metrics` are shown beside it."""
        text = "  ".join(f"{name} {_short(value)}" for name, value in (metrics or {}).items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, metrics=text)
            return
        now = self._clock()
        if now - self._last >= self._every_s or step >= self.total_steps:
            self._last = now
            parts = (f"step {step}/{self.total_steps}", text, self._left(step, now))
            self._line("  ".join(part for part in parts if part))

    def message(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._line(text)

    def _make_bar(self) -> rich.progress.Progress:
        return rich.progress.Progress(
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[metrics]}", markup=False),
            console=rich.console.Console(file=self._stream),
        )

    def _left(self, step: int, now: float) -> str:
        """The estimate `eta 1:05`; nothing before the first step of this process is done."""
        done, left = step - self.start_step, self.total_steps - step
        if done <= 0 or left <= 0:
            return ""
        return f"eta {_clock_text((now - self._began) / done * left)}"

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def _short(value: Any) -> str:
    """Four digits: enough to watch, the exact value is in metrics.jsonl."""
    return f"{float(value):.4g}"


def _clock_text(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
