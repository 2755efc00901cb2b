# SPDX-License-Identifier: Apache-2.0
"""From a source to batches: an endless training iterator and padded evaluation batches.

Both are Grain pipelines over batch numbers. Batch i is a function of (source, seed, i), so the
state of an iterator is one number, the same whatever the number of workers or the prefetch depth.

Measured on CIFAR-10 (batch 128, pad-and-crop, flip, normalise) in examples per second of CPU time:
44,000 to 76,000 from RAM or a filled cache, 5,000 to 5,700 where each JPEG is decoded. A worker
process costs 1.3 to 2.1 s of CPU to start (it imports Grain and what the transforms import) and a
copy of every batch, so it pays for decoding alone.
"""

import atexit
import contextlib
import gc
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any

import grain
from absl import flags

from efficient_layers.data import workers as worker_processes
from efficient_layers.data.order import Order
from efficient_layers.data.source import Batch, Source
from efficient_layers.data.stages import Transform, assemble, check_first

STATE_FORMAT = 1


def train_iterator(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    element_transforms: Sequence[Transform] = (),
    batch_transforms: Sequence[Transform] = (),
    workers: int = 0,
    prefetch: int = 2,
    shard_index: int = 0,
    shard_count: int = 1,
) -> "TrainIterator":
    """Endless shuffled batches: {"image": float32 [b, h, w, c], "label": int32 [b], "index"}.

    `batch_size` counts the examples of all shards; this iterator gives `batch_size / shard_count`
    of them. Every epoch is reshuffled from (seed, epoch) and drops its remainder. Transforms are
    `(x) -> x` or `(x, rng) -> x`; those of an example run before those of the batch. "index"
    (int64) is the row of each example in `source`.

    `workers` is the number of extra processes (0: threads of this process, which is faster for
    arrays and small images); `prefetch` is how many batches (a worker) are made ahead.

    Raises:
        ValueError: an empty source, a batch larger than it or not divisible by `shard_count`.
    """
    order = Order(len(source), batch_size, seed, shard_index, shard_count)
    batches = assemble(source, order, element_transforms, batch_transforms, keep_mask=False)
    return TrainIterator(batches, order, workers=workers, prefetch=prefetch)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    element_transforms: Sequence[Transform] = (),
    batch_transforms: Sequence[Transform] = (),
    workers: int = 0,
    prefetch: int = 2,
    shard_index: int = 0,
    shard_count: int = 1,
) -> "EvalBatches":
    """Every example once, in order; a re-iterable of batches with "mask" float32 [b].

    The last batch is filled up with copies of row 0, with mask 0 and index -1. All shards give
    equally many batches; a shard's last one may be padding alone.

    Raises:
        ValueError: an empty source, an indivisible batch, or a random transform.
    """
    order = Order(len(source), batch_size, None, shard_index, shard_count)
    batches = assemble(source, order, element_transforms, batch_transforms, keep_mask=True)
    return EvalBatches(batches, order, workers=workers, prefetch=prefetch)


class TrainIterator:
    """Endless batches with a place that can be stored; made by `train_iterator`.

    Nothing is read and no process starts before the first batch is asked for, so `set_state` on a
    fresh iterator is free. Usable as a context manager, which closes it.
    """

    def __init__(
        self, batches: grain.MapDataset, order: Order, *, workers: int, prefetch: int
    ) -> None:
        _check_depth(workers, prefetch)
        self._batches, self._order = batches, order
        self._workers, self._prefetch = workers, prefetch
        self._next = 0
        self._stream: _Stream | None = None
        self._closed = False

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch (the remainder is dropped)."""
        return self._order.batches_per_epoch

    def __iter__(self) -> "TrainIterator":
        return self

    def __next__(self) -> Batch:
        if self._closed:
            raise ValueError("This iterator is closed; make a new one with train_iterator.")
        if self._stream is None:
            self._stream = _Stream(self._batches, self._next, self._workers, self._prefetch)
        batch = next(self._stream)
        self._next += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The place after the last batch handed out, as plain integers for JSON."""
        return {"format": STATE_FORMAT, "batch": self._next} | self._identity()

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a stored place; the next batch is the one that followed it, bit for bit.

        O(1): no batch in between is read. `workers` and `prefetch` may differ from those of the
        run that stored it. With another `shard_count` the rows are the same, element transforms
        too; batch transforms draw anew.

        Raises:
            ValueError: the state is of another seed, batch size, source length or format.
        """
        expected = {"format": STATE_FORMAT} | self._identity()
        found = {key: state.get(key) for key in expected}
        if found != expected or not isinstance(state.get("batch"), int) or state["batch"] < 0:
            raise ValueError(
                f"The stored iterator state does not belong to this data: expected {expected} and "
                f"a batch number, got {state}. Restore with the settings of the run that stored "
                "it, or start a new run."
            )
        self._stop()
        self._next = state["batch"]

    def close(self) -> None:
        """Stop threads and worker processes; the iterator gives no more batches."""
        self._closed = True
        self._stop()

    def __enter__(self) -> "TrainIterator":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _identity(self) -> dict[str, int]:
        order = self._order
        assert order.seed is not None
        return {"seed": order.seed, "batch_size": order.batch_size, "examples": order.examples}

    def _stop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class EvalBatches:
    """Each example of a source exactly once; made by `eval_batches`, may be iterated again."""

    def __init__(
        self, batches: grain.MapDataset, order: Order, *, workers: int, prefetch: int
    ) -> None:
        _check_depth(workers, prefetch)
        self._batches, self._order = batches, order
        self._workers, self._prefetch = workers, prefetch

    @property
    def examples(self) -> int:
        """Examples over all shards."""
        return self._order.examples

    def __len__(self) -> int:
        return self._order.batches_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        with contextlib.closing(_Stream(self._batches, 0, self._workers, self._prefetch)) as stream:
            yield from stream


class _Stream:
    """A running pipeline from one batch number on: owns its threads and processes."""

    def __init__(self, batches: grain.MapDataset, start: int, workers: int, prefetch: int) -> None:
        # Inside a worker process one batch is made after another; here threads overlap them with
        # the device's work.
        threads = 0 if workers else min(prefetch, 2, os.cpu_count() or 1)
        reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
        batches = batches[start:]
        stream = batches.to_iter_dataset(reading)
        if workers:
            processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=prefetch)
            stream = stream.mp_prefetch(processes, worker_init_fn=worker_processes.initialise)
        self._iterator: Any = iter(stream)
        self._first: Callable[[], Any] | None = (
            self._first_from_workers if workers else self._first_batch
        )
        _running.add(self)

    def __iter__(self) -> "_Stream":
        return self

    def __next__(self) -> Batch:
        if self._first is not None:
            first, self._first = self._first, None
            return first()
        return next(self._iterator)

    def _first_batch(self) -> Batch:
        batch = next(self._iterator)
        check_first(batch)
        return batch

    def _first_from_workers(self) -> Batch:
        # Starting the tracker unblocks signals in the calling thread (CPython 3.11), so it starts
        # before they are held.
        resource_tracker.ensure_running()
        # Grain reads absl flags of its own when it starts a process, and absl refuses that in a
        # program that parses none.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        with worker_processes.stop_signals_held():
            return self._first_batch()

    def close(self) -> None:
        _running.discard(self)
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()


_running: "weakref.WeakSet[_Stream]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Stop workers before multiprocessing does: it would send SIGTERM, which they ignore."""
    for stream in list(_running):
        stream.close()
    # Grain's iterators close themselves once more when they are deleted, which fails (and prints)
    # when that happens in an interpreter that is half gone.
    gc.collect()


def _check_depth(workers: int, prefetch: int) -> None:
    if workers < 0:
        raise ValueError(f"workers must be 0 or more; got {workers}.")
    if prefetch < 1:
        raise ValueError(f"prefetch must be 1 or more; got {prefetch}.")
