# SPDX-License-Identifier: Apache-2.0
"""A trainer in small, for the tests of worker processes: reads batches until it is told to stop.

`python job.py WORKERS` prints "worker PID" for each worker, then "batch N" for every batch, and
"stopped" once it had SIGTERM and read three batches more.
"""

import multiprocessing
import signal
import sys
import time

from efficient_layers import data


def main() -> None:
    """Read batches; on SIGTERM read three more and end."""
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    train = data.load("digits").train
    workers = int(sys.argv[1])
    with data.train_iterator(train, batch_size=32, seed=0, workers=workers) as iterator:
        for _ in range(workers):  # one batch of each, so that all have started
            next(iterator)
        for process in multiprocessing.active_children():
            print("worker", process.pid, flush=True)
        left = 3
        while left:
            next(iterator)
            print("batch", iterator.get_state()["batch"], flush=True)
            left -= bool(stop)
            time.sleep(0.02)
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
