# SPDX-License-Identifier: Apache-2.0
"""Which rows make a batch: epochs, shards, padding, and the errors about sizes."""

import numpy as np
import pytest

from efficient_layers.data.order import Order

pytestmark = pytest.mark.fast


def rows(order, first, count):
    return [order(batch).rows.tolist() for batch in range(first, first + count)]


def test_an_epoch_has_each_row_at_most_once_and_drops_the_remainder():
    order = Order(23, 4, seed=1)
    assert order.batches_per_epoch == 5
    seen = np.concatenate(rows(order, 0, 5))
    assert len(set(seen.tolist())) == 20
    assert set(seen.tolist()) <= set(range(23))


def test_epochs_and_seeds_shuffle_differently():
    order = Order(64, 8, seed=1)
    assert rows(order, 0, 8) != rows(order, 8, 8)
    assert rows(order, 0, 8) != rows(Order(64, 8, seed=2), 0, 8)
    # A shuffle seeded by seed + epoch would make these two equal.
    assert rows(order, 8, 8) != rows(Order(64, 8, seed=2), 0, 8)


def test_every_row_leads_an_epoch_about_equally_often():
    # 2,000 epochs of 10 rows: each leads 200 times, standard deviation 13.4.
    order = Order(10, 10, seed=0)
    leaders = np.bincount([order(epoch).rows[0] for epoch in range(2000)], minlength=10)
    assert np.abs(leaders - 200).max() < 60


@pytest.mark.parametrize("seed", [None, 5])
def test_shards_side_by_side_are_the_whole_batch(seed):
    whole = Order(30, 8, seed)
    shards = [Order(30, 8, seed, index, 4) for index in range(4)]
    for batch in range(whole.batches_per_epoch):
        parts = [shard(batch) for shard in shards]
        np.testing.assert_array_equal(
            np.concatenate([part.rows for part in parts]), whole(batch).rows
        )
        assert [part.first for part in parts] == [0, 2, 4, 6]


def test_without_a_seed_each_row_comes_once_and_the_rest_is_padding():
    order = Order(10, 4, None)
    assert order.batches_per_epoch == 3
    picked = [order(batch) for batch in range(3)]
    real = np.concatenate([p.rows[p.mask > 0] for p in picked])
    assert real.tolist() == list(range(10))
    assert picked[2].mask.tolist() == [1, 1, 0, 0]
    assert picked[2].rows.tolist() == [8, 9, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 0), "source is empty"),
        ((0, 4, None), "source is empty"),
        ((10, 0, 0), "batch_size must be at least 1"),
        ((10, 11, 0), "batch_size=11 is larger than the training source of 10"),
        ((100, 9, 0, 0, 4), r"multiple of shard_count=4; the nearest is 8"),
        ((100, 8, 0, 2, 2), "shard_index must lie in"),
        ((100, 8, -1), "seed must be 0 or more"),
    ],
)
def test_sizes_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Order(*arguments)


def test_evaluation_may_have_fewer_examples_than_a_batch():
    assert Order(3, 8, None)(0).mask.sum() == 3
