# SPDX-License-Identifier: Apache-2.0
"""How transforms are told apart and what a finished batch looks like."""

from functools import partial

import numpy as np
import pytest

from efficient_layers.data.stages import Finish, is_random
from efficient_layers.data.transforms import normalise, to_float
from efficient_layers.learn import augment

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", ["pad_and_crop", "flip", "cutout", "random_resized_crop"])
def test_augmentations_are_random(name):
    assert is_random(getattr(augment, name))


@pytest.mark.parametrize("transform", [to_float, partial(normalise, mean=[0], std=[1])])
def test_transforms_are_not(transform):
    assert not is_random(transform)


def test_other_signatures_are_refused():
    with pytest.raises(TypeError, match=r"functools\.partial"):
        is_random(lambda batch, rng, size: batch)
    with pytest.raises(TypeError, match="needs 0"):
        is_random(lambda: None)


def test_finish_casts_and_keeps_what_it_does_not_know():
    batch = {
        "image": np.full((2, 1, 1, 1), 255, np.uint8),
        "label": np.array([1, 0], np.uint8),
        "weight": np.ones(2),
        "mask": np.ones(2, np.float32),
    }
    finished = Finish(num_classes=2, rows=2, keep_mask=False)(batch)
    assert {key: str(array.dtype) for key, array in finished.items()} == {
        "image": "float32",
        "label": "int32",
        "weight": "float64",
    }
    assert finished["image"].max() == 1
    assert batch["image"].dtype == np.uint8


def test_finish_keeps_soft_labels():
    soft = {"label": np.full((2, 4), 0.25, np.float32), "mask": np.ones(2, np.float32)}
    assert Finish(None, 2, keep_mask=True)(soft)["label"].dtype == np.float32
