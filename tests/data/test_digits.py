# SPDX-License-Identifier: Apache-2.0
"""The bundled digits: their bytes, their provenance, their fixed test split."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from efficient_layers import data
from efficient_layers.data import digits

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]


def test_the_file_is_the_one_its_provenance_names():
    found = hashlib.sha256((ROOT / "efficient_layers/data/digits.npz").read_bytes()).hexdigest()
    assert found == digits.SHA256
    assert found in (ROOT / "third_party/digits/README.md").read_text()
    assert found in data.load("digits").info.provenance


def test_the_values_are_those_scikit_learn_distributes():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is the oracle here")
    published = datasets.load_digits()
    arrays = digits.arrays().arrays
    np.testing.assert_array_equal(arrays["image"][..., 0] * 16, published.images)
    np.testing.assert_array_equal(arrays["label"], published.target)


def test_examples_per_class_are_the_published_ones():
    counts = np.bincount(digits.arrays().arrays["label"])
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize("seed", [0, 7])
def test_split_sizes_and_rule(seed):
    splits = data.load("digits", seed=seed)
    assert splits.info.sizes == {"train": 1221, "validation": 216, "test": 360}
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [1221, 216, 360]
    everything = digits.arrays().arrays["image"]
    for row in (0, 1, 359):
        np.testing.assert_array_equal(splits.test[row]["image"], everything[5 * row])


def test_the_three_splits_are_a_partition():
    splits = data.load("digits", seed=3)
    test = set(range(0, 1797, 5))
    rest = [row for row in range(1797) if row % 5]
    train, validation = (
        {rest[row] for row in part.rows} for part in (splits.train, splits.validation)
    )
    assert train | validation | test == set(range(1797))
    assert not train & validation
    assert not test & (train | validation)


def test_validation_depends_on_the_seed_and_test_does_not():
    first, second = data.load("digits", seed=0), data.load("digits", seed=1)
    assert first.validation.rows.tolist() != second.validation.rows.tolist()
    assert first.test.rows.tolist() == second.test.rows.tolist()


def test_images_are_scaled_to_one():
    image = digits.arrays().arrays["image"]
    assert image.shape == (1797, 8, 8, 1)
    assert image.dtype == np.float32
    assert (image.min(), image.max()) == (0, 1)
