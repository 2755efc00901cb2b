# SPDX-License-Identifier: Apache-2.0
"""The one protocol of a data set: random access to examples.

A source has a length and gives `source[i]`, a dict of NumPy arrays (or Python numbers) with the
keys "image" [h, w, c] and "label" []. Anything that does is good enough for the pipeline. Two
optional methods make it faster: `read_many(rows)` reads several examples at once, `batch(rows)`
gives them already stacked. An optional `num_classes` lets the pipeline check the labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

Element = dict[str, Any]
Batch = dict[str, np.ndarray]
Rows = Int[np.ndarray, "rows"]


@runtime_checkable
class Source(Protocol):
    """Random access: `len(source)` examples, each a dict of arrays."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Element: ...


class Subset:
    """Some rows of a source, as a source; `subset[i]` is `source[rows[i]]`.

    Raises:
        IndexError: a row lies outside the source.
    """

    def __init__(self, source: Source, rows: Rows | Sequence[int]) -> None:
        self.source = source
        self.rows = np.asarray(rows, np.int64)
        if self.rows.size and not 0 <= self.rows.min() <= self.rows.max() < len(source):
            raise IndexError(
                f"Subset rows must lie in [0, {len(source)}); got {self.rows.min()} to "
                f"{self.rows.max()}."
            )

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the whole source, None where it is not known."""
        return getattr(self.source, "num_classes", None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Element:
        return self.source[int(self.rows[row])]

    def read_many(self, rows: Rows) -> list[Element]:
        """The examples at `rows`, in that order."""
        return read_elements(self.source, self.rows[rows])

    def batch(self, rows: Rows) -> Batch:
        """The examples at `rows`, stacked."""
        return read_batch(self.source, self.rows[rows])


def read_elements(source: Source, rows: Rows) -> list[Element]:
    """The examples at `rows`, by the source's `read_many` where it has one."""
    many = getattr(source, "read_many", None)
    return many(rows) if many is not None else [source[int(row)] for row in rows]


def read_batch(source: Source, rows: Rows) -> Batch:
    """The examples at `rows` stacked along a new first axis: each key [rows, ...]."""
    stacked = getattr(source, "batch", None)
    return stacked(rows) if stacked is not None else stack(read_elements(source, rows))


def stack(elements: Sequence[Mapping[str, Any]]) -> Batch:
    """Stack equal-shaped examples.

    Raises:
        ValueError: there is no example, or a key has different shapes.
    """
    if not elements:
        raise ValueError("Cannot make a batch of 0 examples.")
    batch = {}
    for key in elements[0]:
        arrays = [np.asarray(element[key]) for element in elements]
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            raise ValueError(
                f"All examples of a batch must have one shape; {key!r} has {shapes[:4]}. Add an "
                "element transform that makes them equal, such as transforms.resize(size=...)."
            )
        batch[key] = np.stack(arrays)
    return batch
