# SPDX-License-Identifier: Apache-2.0
"""Worker processes: same batches, deaf to SIGTERM, silent, and gone when the trainer is."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from efficient_layers import data
from efficient_layers.learn import augment

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for processes in /proc"
)
JOB = Path(__file__).parent / "job.py"
PATIENCE_S = 60


def start_job(workers):
    return subprocess.Popen(
        [sys.executable, str(JOB), str(workers)],
        cwd=JOB.parents[2],
        env=os.environ | {"PYTHONPATH": str(JOB.parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_workers(job):
    """The PIDs the job prints, read up to its first batch."""
    pids = []
    for line in job.stdout:
        word, number = line.split()
        if word == "batch":
            return pids
        pids.append(int(number))
    raise AssertionError(job.stderr.read())


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def shared_memory(pid):
    """Names of the shared memory files that a process has mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text().split()
    return {word for word in maps if word.startswith("/dev/shm/")}


@pytest.fixture
def job(request):
    process = start_job(request.param)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("job", [2], indirect=True)
def test_sigterm_stops_the_trainer_but_not_its_workers(job):
    workers = read_workers(job)
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert job.stdout.readline().startswith("batch")
    assert all(alive(pid) for pid in workers)
    os.killpg(job.pid, signal.SIGTERM)
    output, errors = job.communicate(timeout=PATIENCE_S)
    assert output.splitlines()[-1] == "stopped", errors
    assert job.returncode == 0
    assert errors == ""
    wait_until(lambda: not any(alive(pid) for pid in workers))


@pytest.mark.parametrize("job", [1], indirect=True)
def test_sigterm_while_the_worker_starts(job):
    # Two children: multiprocessing's resource tracker and the worker, which still imports.
    wait_until(lambda: len(children(job.pid)) >= 2 or job.poll() is not None)
    os.killpg(job.pid, signal.SIGTERM)
    output, errors = job.communicate(timeout=PATIENCE_S)
    assert output.splitlines()[-1] == "stopped", errors
    assert job.returncode == 0


@pytest.mark.parametrize("job", [2], indirect=True)
def test_workers_end_with_a_killed_trainer(job):
    started = set(children(job.pid)) | set(read_workers(job))
    assert len(started) >= 2
    shared = set().union(*(shared_memory(pid) for pid in started))
    job.kill()
    job.wait()
    wait_until(lambda: not any(alive(pid) for pid in started))
    wait_until(lambda: not any(Path(name).exists() for name in shared))


def test_batches_and_states_do_not_depend_on_workers():
    train = data.load("digits").train
    transforms = (partial(augment.pad_and_crop, padding=1), augment.flip)
    settings = {"batch_size": 64, "seed": 5, "batch_transforms": transforms}
    with data.train_iterator(train, **settings) as plain:
        expected = [next(plain) for _ in range(24)]
    with data.train_iterator(train, **settings, workers=2) as iterator:
        found = [next(iterator) for _ in range(5)]
        state = json.loads(json.dumps(iterator.get_state()))
    with data.train_iterator(train, **settings, workers=1) as iterator:
        iterator.set_state(state)
        found += [next(iterator) for _ in range(19)]
    for one, other in zip(found, expected, strict=True):
        for key in other:
            np.testing.assert_array_equal(one[key], other[key])


def test_an_error_in_a_worker_reaches_the_trainer():
    train = data.load("digits").train
    with (
        data.train_iterator(train, batch_size=8, seed=0, workers=1, batch_transforms=(fail,)) as it,
        pytest.raises(ZeroDivisionError, match="deliberate"),
    ):
        next(it)


def test_a_script_that_never_closes_its_iterator_still_ends():
    script = (
        "from efficient_layers import data\n"
        "train = data.load('digits').train\n"
        "iterator = data.train_iterator(train, batch_size=8, seed=0, workers=1)\n"
        "print(len(next(iterator)['label']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=JOB.parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "8\n", "")


def test_workers_start_no_jax_device():
    from jax._src import xla_bridge

    assert callable(xla_bridge.backends_are_initialized)
    train = data.load("digits").train
    with data.train_iterator(
        train, batch_size=8, seed=0, workers=1, batch_transforms=(note_devices,)
    ) as iterator:
        batches = [next(iterator) for _ in range(3)]
    assert not any(batch["devices"].any() for batch in batches)


def note_devices(batch):
    from jax._src import xla_bridge

    return batch | {"devices": np.full(8, xla_bridge.backends_are_initialized())}


def fail(batch):
    raise ZeroDivisionError("deliberate")
