# SPDX-License-Identifier: Apache-2.0
"""Stand-in data: shapes and classes of the real thing, the same for the same seed."""

import sys

import numpy as np
import pytest

from efficient_layers import data
from efficient_layers.data import stand_in, tfds

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("digits", (8, 8, 1), 10),
        ("tfds:cifar10", (32, 32, 3), 10),
        ("tfds:cifar10:3.0.2", (32, 32, 3), 10),
        ("tfds:imagenet2012", (None, None, 3), 1000),
    ],
)
def test_shape_and_classes(name, shape, classes, tmp_path):
    splits = data.load(name, data_dir=tmp_path, stand_in=True)
    assert splits.info.image_shape == shape
    assert splits.info.num_classes == len(splits.info.class_names) == classes
    labels = {int(splits.train[row]["label"]) for row in range(classes)}
    assert labels == set(range(classes))
    for part in (splits.train, splits.validation, splits.test):
        image = part[len(part) - 1]["image"]
        assert image.dtype == np.uint8
        wanted = zip(shape, image.shape, strict=True)
        assert all(size in (None, got) for size, got in wanted)
    assert "NOT the data set" in splits.info.provenance
    assert list(tmp_path.iterdir()) == []


def test_images_depend_on_seed_row_and_split():
    first, again, other = (
        data.load("digits", stand_in=True, seed=seed).train[3]["image"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    splits = data.load("digits", stand_in=True)
    assert not np.array_equal(splits.train[0]["image"], splits.test[0]["image"])


def test_free_sizes_differ_from_image_to_image(tmp_path):
    train = data.load("tfds:imagenet2012", data_dir=tmp_path, stand_in=True).train
    assert len({train[row]["image"].shape for row in range(3)}) == 3


def test_a_small_table_stands_in_for_tfds(monkeypatch):
    def broken(name, data_dir):
        raise ImportError("no TensorFlow here")

    monkeypatch.setattr(tfds, "builder_of", broken)
    assert data.load("tfds:mnist", stand_in=True).info.image_shape == (28, 28, 1)
    with pytest.raises(ImportError):
        data.load("tfds:unheard_of", stand_in=True)


@pytest.mark.parametrize("name", sorted(stand_in.KNOWN))
def test_the_table_agrees_with_tfds(name, tmp_path):
    features = tfds.features_of(tfds.builder_of(name, str(tmp_path)))
    assert stand_in.KNOWN[name] == (features.image_shape, len(features.class_names))
    assert "tensorflow" not in sys.modules
