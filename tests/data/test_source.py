# SPDX-License-Identifier: Apache-2.0
"""Subsets and stacking."""

import numpy as np
import pytest

from efficient_layers import data
from efficient_layers.data.source import read_batch, stack

pytestmark = pytest.mark.fast


def plain(count):
    """The least a source can be: a list of dicts."""
    return [{"image": np.full((2, 2, 1), row, np.uint8), "label": row} for row in range(count)]


def test_a_list_of_dicts_is_a_source():
    assert isinstance(plain(3), data.Source)
    batch = read_batch(plain(5), np.array([4, 2]))
    np.testing.assert_array_equal(batch["label"], [4, 2])
    assert batch["image"].shape == (2, 2, 2, 1)


def test_subset_of_a_subset():
    outer = data.Subset(data.Subset(plain(10), np.array([9, 7, 5, 3])), np.array([2, 0]))
    assert [outer[0]["label"], outer[1]["label"]] == [5, 9]
    np.testing.assert_array_equal(outer.batch(np.array([1, 1, 0]))["label"], [9, 9, 5])
    assert [element["label"] for element in outer.read_many(np.array([1]))] == [9]
    assert outer.num_classes is None


@pytest.mark.parametrize("rows", [[-1], [3], [0, 99]])
def test_subset_rows_must_exist(rows):
    with pytest.raises(IndexError, match=r"\[0, 3\)"):
        data.Subset(plain(3), np.array(rows))


def test_stack_names_the_key_of_unequal_shapes():
    with pytest.raises(ValueError, match=r"'image'.*resize"):
        stack([{"image": np.zeros((2, 2, 1))}, {"image": np.zeros((3, 2, 1))}])
    with pytest.raises(ValueError, match="0 examples"):
        stack([])
