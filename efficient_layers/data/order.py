# SPDX-License-Identifier: Apache-2.0
"""Which rows make up batch number i: arithmetic alone, so that skipping ahead reads nothing."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from efficient_layers.data.source import Rows


class Picked(NamedTuple):
    """The rows of one shard's part of a batch.

    `first` is the place of this part in the whole batch of `whole` rows, and `mask` is 1 for real
    rows and 0 for padding.
    """

    rows: Rows
    mask: Float[np.ndarray, "rows"]
    first: int
    whole: int


@dataclass(frozen=True)
class Order:
    """The order in which a source of `examples` is read; `order(i)` is batch number i, endlessly.

    With a `seed`, epoch e is a permutation drawn from (seed, e) and its remainder is dropped. With
    None, rows come as they lie and the last batch of the pass is padded with row 0. A batch is cut
    into `shard_count` equal runs, so the shards' parts, laid side by side, are the whole batch:
    the rows do not depend on the number of shards. O(1) in i, apart from one permutation an epoch
    (measured on one core: 1 ms for 50,000 rows, 0.05 s for ImageNet's 1.28 million).
    """

    examples: int
    batch_size: int
    seed: int | None
    shard_index: int = 0
    shard_count: int = 1

    def __post_init__(self) -> None:
        _check_order(self)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in one pass: rounded down for training, up without a seed."""
        whole, rest = divmod(self.examples, self.batch_size)
        return whole + (rest > 0 and self.seed is None)

    def __call__(self, batch: int) -> Picked:
        epoch, step = divmod(batch, self.batches_per_epoch)
        local = self.batch_size // self.shard_count
        first = self.shard_index * local
        start = step * self.batch_size + first
        places = np.arange(start, start + local)
        mask = (places < self.examples).astype(np.float32)
        places[mask == 0] = 0
        if self.seed is not None:
            places = permutation(self.seed, epoch, self.examples)[places]
        return Picked(places, mask, first, self.batch_size)


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, examples: int) -> Rows:
    """The order of an epoch: a uniform draw that depends on (seed, epoch) alone.

    NumPy's legacy generator, whose stream is frozen for good (NEP 19), so a run resumes in the
    same order under another NumPy.
    """
    bits = np.random.MT19937(np.random.SeedSequence((seed, epoch)))
    order = np.random.RandomState(bits).permutation(examples)
    order.flags.writeable = False
    return order


def _check_order(order: Order) -> None:
    if order.examples < 1:
        raise ValueError("The source is empty: it needs at least one example; got 0.")
    if order.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {order.batch_size}.")
    if not 0 <= order.shard_index < order.shard_count:
        raise ValueError(
            f"shard_index must lie in [0, shard_count={order.shard_count}); got "
            f"{order.shard_index}."
        )
    if order.batch_size % order.shard_count:
        raise ValueError(
            f"batch_size={order.batch_size} (over all shards) must be a multiple of "
            f"shard_count={order.shard_count}; the nearest is {_nearest_multiple(order)}."
        )
    if order.seed is None:
        return
    if order.seed < 0:
        raise ValueError(f"seed must be 0 or more; got {order.seed}.")
    if order.batch_size > order.examples:
        raise ValueError(
            f"batch_size={order.batch_size} is larger than the training source of "
            f"{order.examples} examples, so an epoch has no whole batch. Use batch_size <= "
            f"{order.examples}."
        )


def _nearest_multiple(order: Order) -> int:
    return max(1, round(order.batch_size / order.shard_count)) * order.shard_count
