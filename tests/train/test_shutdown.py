# SPDX-License-Identifier: Apache-2.0
"""Real processes get real signals: the first is a note, the second the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from efficient_layers.train.shutdown import EXIT_PREEMPTED, Shutdown
from tests.train import child

pytestmark = pytest.mark.fast

_SLEEP = """
import sys, time
from efficient_layers.train.shutdown import EXIT_PREEMPTED, Shutdown
with Shutdown() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print(stop.requested, flush=True)
    time.sleep(float(sys.argv[1]))
sys.exit(EXIT_PREEMPTED)
"""

# Traced and lowered in 0.4 s (`block` once); XLA inlines the calls: 150 compile in 1 s, 800 in 20.
_COMPILE = """
import sys, time, jax, jax.numpy as jnp
from efficient_layers.train.shutdown import EXIT_PREEMPTED, Shutdown
@jax.jit
def block(x):
    return jnp.sort(jnp.sin(x @ x), axis=0) + 1
def f(x):
    for _ in range(int(sys.argv[1])):
        x = block(x)
    return x
lowered = jax.jit(f).lower(jnp.ones((8, 8)))
with Shutdown() as stop:
    print("ready", flush=True)
    lowered.compile()
    print(stop.requested, flush=True)
sys.exit(EXIT_PREEMPTED if stop.requested else 0)
"""


def _ready(code: str, argument: str) -> subprocess.Popen[str]:
    process = child.start(code, argument)
    assert child.line(process) == "ready"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_is_noted_and_the_run_ends_by_itself(number: signal.Signals) -> None:
    process = _ready(_SLEEP, "0.1")
    process.send_signal(number)
    out, error = child.end(process)
    assert process.returncode == EXIT_PREEMPTED == 75
    assert out == f"{number.name}\n"
    assert f"{number.name}: the run saves and stops" in error
    assert "Traceback" not in error


def test_second_signal_ends_a_sleep_at_once() -> None:
    process = _ready(_SLEEP, "60")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = child.end(process)
    assert time.monotonic() - start < 2
    assert process.returncode == 128 + signal.SIGINT
    assert "without saving" in error


def test_one_request_delivered_twice_is_one_request() -> None:
    """`timeout` signals its child, then the group it is in."""
    process = _ready(_SLEEP, "0.5")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    child.end(process)
    assert process.returncode == EXIT_PREEMPTED


def test_first_signal_during_xla_compilation_waits_for_it() -> None:
    process = _ready(_COMPILE, "150")
    process.send_signal(signal.SIGTERM)
    out, _ = child.end(process)
    assert process.returncode == EXIT_PREEMPTED
    assert out == "SIGTERM\n"


def test_second_signal_ends_xla_compilation_at_once() -> None:
    process = _ready(_COMPILE, "800")
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None, "the compilation was too short for this test"
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, _ = child.end(process)
    assert time.monotonic() - start < 2
    assert process.returncode == 128 + signal.SIGTERM
    assert out == ""


def test_max_runtime_takes_the_same_path() -> None:
    with Shutdown(max_runtime_s=0.05) as stop:
        assert stop.requested is None
        time.sleep(0.06)
        assert stop.requested == "max_runtime_s"
        assert stop.agreed(3) == "max_runtime_s"


def test_first_reason_stays() -> None:
    with Shutdown(max_runtime_s=0.01) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.02)
        assert stop.requested == "SIGTERM"


def test_handlers_wakeup_fd_and_thread_are_put_back() -> None:
    seen = []
    previous = signal.signal(signal.SIGTERM, lambda *_: seen.append("outer"))
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with Shutdown():
            assert "shutdown" in {thread.name for thread in threading.enumerate()}
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert seen == ["outer"]
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert signal.getsignal(signal.SIGINT) is interrupt
    assert signal.set_wakeup_fd(-1) == -1
    deadline = time.monotonic() + 5
    while "shutdown" in {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_forked_childs_signal_is_not_the_parents() -> None:
    with Shutdown() as stop:
        worker = subprocess.run(
            [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"],
            check=False,
        )
        assert worker.returncode == -signal.SIGTERM
        assert stop.requested is None


def test_only_the_main_thread_may_enter() -> None:
    errors: list[Exception] = []

    def enter() -> None:
        try:
            Shutdown().__enter__()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_bad_limit(seconds: float) -> None:
    with pytest.raises(ValueError, match="max_runtime_s must be >= 0"):
        Shutdown(max_runtime_s=seconds)


def test_asking_is_cheap() -> None:
    with Shutdown(max_runtime_s=1e6) as stop:
        start = time.perf_counter()
        for step in range(10_000):
            stop.agreed(step)
        assert (time.perf_counter() - start) / 10_000 < 50e-6
