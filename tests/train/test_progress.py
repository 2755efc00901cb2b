# SPDX-License-Identifier: Apache-2.0
"""Progress: plain lines in a file, a bar on a terminal."""

import io

import pytest

from efficient_layers.train.progress import Progress

pytestmark = pytest.mark.fast


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_plain_lines_with_the_time_left():
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, 500, stream, clock=clock) as progress:
        clock.now += 10
        progress.update(600, {"loss": 0.123456, "examples/s": 1234567.0})
        progress.message("checkpoint at step 600 [kept]")
        clock.now += 10
        progress.update(601)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "step 600/1000  loss 0.1235  examples/s 1.235e+06  eta 0:40",
        "checkpoint at step 600 [kept]",
        "step 601/1000  eta 1:19",
    ]


def test_lines_are_rate_limited_but_the_last_one_is_shown():
    stream, clock = io.StringIO(), Clock()
    with Progress(20, 0, stream, every_s=1.0, clock=clock) as progress:
        for step in range(1, 21):
            clock.now += 0.3
            progress.update(step, {"loss": 1.0})
    shown = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert shown == ["1/20", "5/20", "9/20", "13/20", "17/20", "20/20"]


def test_a_bar_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Progress(10, 2, stream) as progress:
        progress.update(5, {"loss": 0.5})
        progress.message("best so far [bold]0.98[/bold]")
        progress.update(10, {"loss": 0.25})
    text = stream.getvalue()
    assert "10/10" in text
    assert "100%" in text
    assert "loss 0.25" in text
    assert "best so far [bold]0.98[/bold]" in text  # shown as it is, not as markup


def test_hours_and_the_end_after_an_error():
    stream, clock = io.StringIO(), Clock()
    with pytest.raises(KeyError), Progress(10_000, 0, stream, clock=clock) as progress:  # noqa: PT012
        clock.now += 60
        progress.update(100)
        raise KeyError
    assert stream.getvalue() == "step 100/10000  eta 1:39:00\n"
