# SPDX-License-Identifier: Apache-2.0
"""Arrays in memory as a source, and a decode-once cache over any source of equal shapes."""

import threading
from typing import Any

import numpy as np

from efficient_layers.data.source import Batch, Element, Rows, Source, read_batch


class Arrays:
    """Examples held in memory: `Arrays(image=[n, h, w, c], label=[n], ...)`.

    `num_classes` (None: unknown) lets labels be checked here and in every batch.

    Raises:
        ValueError: no array, unequal lengths, NaN or infinite values, labels out of range.
    """

    def __init__(self, *, num_classes: int | None = None, **arrays: np.ndarray) -> None:
        if not arrays:
            raise ValueError("Arrays needs at least one array, such as image=..., label=....")
        self.arrays = {key: np.asarray(array) for key, array in arrays.items()}
        self.num_classes = num_classes
        lengths = {key: len(array) for key, array in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"Arrays must have one length along axis 0; got {lengths}.")
        for key, array in self.arrays.items():
            check_finite(key, array)
        check_labels(self.arrays.get("label"), num_classes)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, row: int) -> Element:
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} is outside [0, {len(self)}).")
        return {key: array[row] for key, array in self.arrays.items()}

    def batch(self, rows: Rows) -> Batch:
        """The examples at `rows` stacked, as copies."""
        return {key: array[rows] for key, array in self.arrays.items()}


class Cached:
    """A source whose examples are decoded once and kept in RAM as they come out of it.

    Filled while it is read, so nothing waits at the start and the second epoch decodes nothing.
    Every example must have the shape of the first. It holds n x (bytes of a decoded example):
    CIFAR-10's 50,000 images take 154 MB. A worker process starts with an empty cache of its own,
    so for a data set that fits in RAM `workers=0` is the fast choice.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._store: Batch = {}
        self._filled = np.zeros(len(source), bool)
        self._lock = threading.Lock()

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the cached source, None where it is not known."""
        return getattr(self.source, "num_classes", None)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> Element:
        return {key: array[0] for key, array in self.batch(np.array([row])).items()}

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["source"])  # type: ignore[misc]

    def batch(self, rows: Rows) -> Batch:
        """The examples at `rows` stacked, as copies; those not seen before are decoded."""
        missing = np.unique(rows[~self._filled[rows]])
        if missing.size:
            self._fill(missing)
        return {key: array[rows] for key, array in self._store.items()}

    def read_many(self, rows: Rows) -> list[Element]:
        """The examples at `rows`, in that order."""
        batch = self.batch(rows)
        return [{key: array[i] for key, array in batch.items()} for i in range(len(rows))]

    def _fill(self, rows: Rows) -> None:
        """Decode `rows` outside the lock (two threads may do the same row: same values)."""
        fresh = read_batch(self.source, rows)
        with self._lock:
            if not self._store:
                self._store = {
                    key: np.empty((len(self), *array.shape[1:]), array.dtype)
                    for key, array in fresh.items()
                }
            for key, array in fresh.items():
                self._check_shape(key, array)
                self._store[key][rows] = array
            self._filled[rows] = True

    def _check_shape(self, key: str, array: np.ndarray) -> None:
        if array.shape[1:] != self._store[key].shape[1:]:
            raise ValueError(
                f"A cached source must have examples of one shape; {key!r} has "
                f"{self._store[key].shape[1:]} and {array.shape[1:]}. Set cache=False."
            )


def check_finite(key: str, array: np.ndarray) -> None:
    """Refuse NaN and infinity.

    Raises:
        ValueError: names the key and the first bad row.
    """
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(
            f"{key!r} holds NaN or infinite values (first in row {row}). Repair or drop these "
            "examples; if a transform made them, look at its mean and std."
        )


def check_labels(labels: np.ndarray | None, num_classes: int | None) -> None:
    """Refuse labels outside [0, num_classes), where both are known.

    Raises:
        ValueError: names the smallest and the largest label.
    """
    if labels is None or num_classes is None or not np.size(labels):
        return
    low, high = int(np.min(labels)), int(np.max(labels))
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"Labels must lie in [0, {num_classes}); got {low} to {high}. A split published "
            "without labels has -1 everywhere: choose another one (test_split='validation')."
        )
