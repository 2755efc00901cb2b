# SPDX-License-Identifier: Apache-2.0
"""The training iterator and the evaluation batches: contents, resume, sharding, bad input."""

import json
import time
from functools import partial

import numpy as np
import pytest

from efficient_layers import data
from efficient_layers.learn import augment

pytestmark = pytest.mark.fast

AUGMENT = (partial(augment.pad_and_crop, padding=2), augment.flip)


class Counting:
    """Images of noise, and which rows were read."""

    num_classes = 10

    def __init__(self, examples=50):
        self.examples, self.reads = examples, []

    def __len__(self):
        return self.examples

    def __getitem__(self, row):
        self.reads.append(row)
        rng = np.random.default_rng(row)
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        return {"image": pixels, "label": row % 10}


def jitter(element, rng):
    """A random element transform, so that its generators are tested too."""
    return element | {"image": element["image"] + np.float32(rng.random())}


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_equal(left, right):
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype
            np.testing.assert_array_equal(one[key], other[key])


def train(source=None, **settings):
    settings = {"batch_size": 8, "seed": 3, "batch_transforms": AUGMENT} | settings
    return data.train_iterator(Counting() if source is None else source, **settings)


def test_batch_types_and_the_index_leads_back_to_the_source():
    source = Counting()
    with train(source, batch_transforms=()) as iterator:
        batch = next(iterator)
    assert sorted(batch) == ["image", "index", "label"]
    assert batch["image"].dtype == np.float32
    assert batch["label"].dtype == np.int32
    assert batch["index"].dtype == np.int64
    for image, label, row in zip(*(batch[k] for k in ("image", "label", "index")), strict=True):
        np.testing.assert_allclose(image, source[row]["image"] / 255, rtol=1e-6)
        assert label == row % 10


def test_each_epoch_shows_every_row_and_in_another_order():
    with train(Counting(48)) as iterator:
        assert iterator.batches_per_epoch == 6
        first, second = (np.concatenate([b["index"] for b in take(iterator, 6)]) for _ in "ab")
    assert sorted(first) == sorted(second) == list(range(48))
    assert first.tolist() != second.tolist()


def test_augmentation_differs_between_epochs_and_batches():
    source = data.Arrays(image=np.tile(Counting()[0]["image"], (8, 1, 1, 1)))
    with train(source) as iterator:
        images = [batch["image"] for batch in take(iterator, 3)]
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[1], images[2])


@pytest.mark.parametrize("place", [0, 4, 6, 17])
def test_resume_repeats_the_batches_bit_for_bit(place):
    settings = {"element_transforms": (data.transforms.to_float, jitter), "prefetch": 3}
    with train(**settings) as iterator:
        take(iterator, place)
        state = json.loads(json.dumps(iterator.get_state()))
        expected = take(iterator, 5)
    with train(**settings) as resumed:
        resumed.set_state(state)
        assert resumed.get_state() == state
        assert_equal(take(resumed, 5), expected)
        resumed.set_state(state)
        assert_equal(take(resumed, 5), expected)


def test_prefetch_depth_changes_nothing():
    with train(prefetch=1) as one, train(prefetch=4) as other:
        assert_equal(take(one, 9), take(other, 9))


def test_skipping_far_ahead_reads_nothing_between():
    source = Counting()
    with train(source, prefetch=1) as iterator:
        state = iterator.get_state() | {"batch": 10**12}
        start = time.perf_counter()
        iterator.set_state(state)
        batch = next(iterator)
        assert time.perf_counter() - start < 5
    assert len(source.reads) <= 3 * 8
    assert set(batch["index"]) <= set(source.reads)


def test_nothing_is_read_before_the_first_batch():
    source = Counting()
    train(source).close()
    assert source.reads == []


def test_rows_and_element_draws_do_not_depend_on_the_number_of_shards():
    settings = {"element_transforms": (jitter,), "batch_transforms": ()}
    whole = take(train(**settings), 7)
    shards = [take(train(**settings, shard_index=i, shard_count=2), 7) for i in range(2)]
    for batch, *parts in zip(whole, *shards, strict=True):
        for key in batch:
            joined = np.concatenate([part[key] for part in parts])
            np.testing.assert_array_equal(joined, batch[key])


def test_shards_augment_their_rows_differently():
    image = np.tile(Counting()[0]["image"], (64, 1, 1, 1))
    parts = [
        next(train(data.Arrays(image=image), batch_size=64, shard_index=i, shard_count=2))["image"]
        for i in range(2)
    ]
    assert not np.array_equal(*parts)


def test_a_state_may_be_restored_on_another_number_of_shards():
    with train(batch_transforms=()) as one, train(batch_transforms=(), shard_count=4) as four:
        take(one, 3)
        four.set_state(one.get_state())
        np.testing.assert_array_equal(next(four)["index"], next(one)["index"][:2])


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"batch_size": 16}, {"examples": 51}, {"format": 0}, {"batch": -1}]
)
def test_a_state_of_other_data_is_refused(change):
    iterator = train()
    with pytest.raises(ValueError, match="does not belong to this data"):
        iterator.set_state(iterator.get_state() | change)


def test_a_closed_iterator_says_so():
    iterator = train()
    next(iterator)
    iterator.close()
    iterator.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


def test_an_iterator_dropped_without_close_leaves_no_threads():
    import gc
    import threading

    before = threading.active_count()
    next(train())
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_evaluation_gives_each_example_once_with_padding_masked():
    batches = data.eval_batches(Counting(21), batch_size=8)
    assert len(batches) == 3
    assert batches.examples == 21
    for _ in range(2):
        seen = list(batches)
        assert [len(batch["image"]) for batch in seen] == [8, 8, 8]
        index = np.concatenate([batch["index"] for batch in seen])
        mask = np.concatenate([batch["mask"] for batch in seen])
        assert index[mask > 0].tolist() == list(range(21))
        assert index[mask == 0].tolist() == [-1, -1, -1]
        assert mask.dtype == np.float32


def test_evaluation_left_early_can_be_started_again():
    batches = data.eval_batches(Counting(21), batch_size=8)
    next(iter(batches))
    assert len(list(batches)) == 3


@pytest.mark.parametrize("examples", [3, 8, 9, 21])
def test_evaluation_shards_are_disjoint_and_equally_long(examples):
    shards = [
        list(data.eval_batches(Counting(examples), batch_size=8, shard_index=i, shard_count=2))
        for i in range(2)
    ]
    assert len(shards[0]) == len(shards[1])
    seen = [batch["index"][batch["mask"] > 0] for shard in shards for batch in shard]
    assert sorted(np.concatenate(seen).tolist()) == list(range(examples))


def test_evaluation_refuses_random_transforms():
    with pytest.raises(ValueError, match="deterministic transforms only"):
        data.eval_batches(Counting(), batch_size=8, batch_transforms=(augment.flip,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": []}, "source is empty"),
        ({"batch_size": 51}, "larger than the training source"),
        ({"batch_size": 9, "shard_count": 2}, "must be a multiple of shard_count=2"),
        ({"batch_size": 0}, "at least 1"),
        ({"workers": -1}, "workers must be 0 or more"),
        ({"prefetch": 0}, "prefetch must be 1 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        train(**settings)


def test_a_batch_with_nan_is_refused_when_it_comes_first():
    class Broken(Counting):
        def __getitem__(self, row):
            return {"image": np.full((2, 2, 1), np.nan, np.float32), "label": 0}

    with pytest.raises(ValueError, match="'image' holds NaN"):
        next(train(Broken(), batch_transforms=()))
    with pytest.raises(ValueError, match="'image' holds NaN"):
        list(data.eval_batches(Broken(), batch_size=8))


def test_an_unlabelled_split_is_refused():
    class Unlabelled(Counting):
        def __getitem__(self, row):
            return super().__getitem__(row) | {"label": -1}

    with pytest.raises(ValueError, match=r"Labels must lie in \[0, 10\); got -1"):
        next(train(Unlabelled()))


def test_a_transform_that_empties_the_batch_is_refused():
    def nothing(batch):
        return batch | {"image": batch["image"][:, :0]}

    with pytest.raises(ValueError, match="no empty axis; 'image'"):
        next(train(batch_transforms=(nothing,)))
