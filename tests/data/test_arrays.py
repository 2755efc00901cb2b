# SPDX-License-Identifier: Apache-2.0
"""Arrays in memory and the decode-once cache: what they give, and what they refuse."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from efficient_layers import data

pytestmark = pytest.mark.fast


class Counting:
    """Ten images, and how often each was read."""

    num_classes = 10

    def __init__(self):
        self.reads = np.zeros(10, int)

    def __len__(self):
        return 10

    def __getitem__(self, row):
        self.reads[row] += 1
        return {"image": np.full((2, 3, 1), row, np.uint8), "label": np.int32(row)}


def test_arrays_give_elements_and_stacked_batches():
    image = np.arange(24, dtype=np.uint8).reshape(4, 2, 3, 1)
    source = data.Arrays(image=image, label=np.arange(4), num_classes=4)
    assert len(source) == 4
    np.testing.assert_array_equal(source[2]["image"], image[2])
    batch = source.batch(np.array([3, 0]))
    np.testing.assert_array_equal(batch["image"], image[[3, 0]])
    batch["image"][:] = 0
    assert image.any()


def test_arrays_end_so_that_a_plain_loop_ends():
    source = data.Arrays(image=np.ones((3, 2, 2, 1), np.float32))
    assert len(list(iter(source))) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_arrays_refuse_values_that_are_not_finite(value):
    image = np.zeros((5, 2, 2, 1), np.float32)
    image[3, 1, 0, 0] = value
    with pytest.raises(ValueError, match=r"'image' holds NaN or infinite values \(first in row 3"):
        data.Arrays(image=image, label=np.zeros(5, int))


@pytest.mark.parametrize("label", [-1, 4])
def test_arrays_refuse_labels_out_of_range(label):
    with pytest.raises(ValueError, match=r"Labels must lie in \[0, 4\)"):
        data.Arrays(image=np.zeros((2, 1, 1, 1)), label=np.array([0, label]), num_classes=4)


def test_arrays_refuse_unequal_lengths_and_nothing():
    with pytest.raises(ValueError, match="one length"):
        data.Arrays(image=np.zeros((3, 1, 1, 1)), label=np.zeros(2, int))
    with pytest.raises(ValueError, match="at least one array"):
        data.Arrays()


def test_cache_reads_each_example_once():
    inner = Counting()
    cached = data.Cached(inner)
    for rows in ([1, 4, 4], [4, 1, 9], [9, 9]):
        np.testing.assert_array_equal(cached.batch(np.array(rows))["label"], rows)
    assert inner.reads.tolist() == [0, 1, 0, 0, 1, 0, 0, 0, 0, 1]
    assert cached[4]["image"].tolist() == inner[4]["image"].tolist()
    assert [one["label"] for one in cached.read_many(np.array([9, 1]))] == [9, 1]
    assert cached.num_classes == 10


def test_cache_is_right_when_threads_fill_it_together():
    cached = data.Cached(Counting())
    draws = np.random.default_rng(0).integers(0, 10, size=(200, 6))
    with ThreadPoolExecutor(4) as pool:
        for rows, batch in zip(draws, pool.map(cached.batch, draws), strict=True):
            np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], rows)


def test_cache_goes_to_a_worker_empty():
    cached = data.Cached(Counting())
    cached.batch(np.arange(10))
    copy = pickle.loads(pickle.dumps(cached))
    np.testing.assert_array_equal(copy.batch(np.array([7]))["label"], [7])


def test_cache_refuses_examples_of_two_shapes():
    class Ragged(Counting):
        def __getitem__(self, row):
            return {"image": np.zeros((2 + row, 3, 1), np.uint8)}

    cached = data.Cached(Ragged())
    cached.batch(np.array([0]))
    with pytest.raises(ValueError, match="cache=False"):
        cached.batch(np.array([1]))
