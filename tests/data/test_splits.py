# SPDX-License-Identifier: Apache-2.0
"""Carving a validation split, and the facts about a data set as JSON."""

import json

import pytest

from efficient_layers import data
from efficient_layers.data.splits import carve

pytestmark = pytest.mark.fast


def test_carve_is_a_partition_of_the_asked_size():
    train, validation = carve(200, 0.15, seed=4)
    assert len(validation) == 30
    assert sorted([*train, *validation]) == list(range(200))
    assert train.tolist() == sorted(train)


def test_carve_is_frozen():
    # The stream of NumPy's legacy generator never changes (NEP 19): these rows are for ever.
    assert carve(20, 0.25, seed=0)[1].tolist() == [1, 8, 10, 18, 19]


def test_no_validation_when_the_fraction_is_zero():
    splits = data.load("digits", validation_fraction=0)
    assert splits.validation is None
    assert splits.info.sizes == {"train": 1437, "validation": 0, "test": 360}


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 0.999, 0.001])
def test_a_fraction_that_leaves_nothing_is_refused(fraction):
    with pytest.raises(ValueError, match="validation_fraction"):
        carve(100, fraction, seed=0)


def test_info_is_json():
    info = data.load("digits").info
    facts = json.loads(json.dumps(info.to_json()))
    assert facts["name"] == "digits"
    assert facts["num_classes"] == 10
    assert facts["image_shape"] == [8, 8, 1]
    assert facts["sizes"]["test"] == 360
