# SPDX-License-Identifier: Apache-2.0
"""Random transforms against plain loops and against their distributions."""

import numpy as np
import pytest

from efficient_layers.learn import augment

pytestmark = pytest.mark.fast


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(1, 256, size=shape, dtype=np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_pad_and_crop_cuts_a_window_of_the_padded_image():
    batch = {"image": images(50, 6, 5, 3), "label": np.arange(50)}
    before = batch["image"].copy()
    result = augment.pad_and_crop(batch, rng(), padding=2)
    shifts = set()
    for old, new in zip(batch["image"], result["image"], strict=True):
        padded = np.pad(old, ((2, 2), (2, 2), (0, 0)))
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(padded[y : y + 6, x : x + 5], new)
        ]
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) > 15
    assert {y for y, _ in shifts} == {x for _, x in shifts} == set(range(5))
    np.testing.assert_array_equal(batch["image"], before)
    assert result["label"] is batch["label"]


def test_pad_and_crop_fills_with_the_asked_value():
    batch = {"image": np.ones((40, 4, 4, 1), np.float32)}
    result = augment.pad_and_crop(batch, rng(), padding=3, fill=-2.5)["image"]
    assert set(np.unique(result)) == {np.float32(-2.5), np.float32(1)}
    assert result.dtype == np.float32


def test_flip_mirrors_the_width_of_about_half():
    batch = {"image": images(400, 3, 4, 2)}
    result = augment.flip(batch, rng())["image"]
    mirrored = 0
    for old, new in zip(batch["image"], result, strict=True):
        if not np.array_equal(old, new):
            np.testing.assert_array_equal(new, old[:, ::-1])
            mirrored += 1
    assert 150 < mirrored < 250


@pytest.mark.parametrize(("probability", "mirrored"), [(0, False), (1, True)])
def test_flip_of_one_example_and_of_a_batch(probability, mirrored):
    image = images(3, 4, 2)
    expected = image[:, ::-1] if mirrored else image
    single = augment.flip({"image": image}, rng(), probability=probability)["image"]
    batch = augment.flip({"image": image[None]}, rng(), probability=probability)["image"]
    np.testing.assert_array_equal(single, expected)
    np.testing.assert_array_equal(batch[0], expected)


def test_cutout_covers_one_square():
    batch = {"image": images(200, 8, 8, 1)}
    result = augment.cutout(batch, rng(), size=4)["image"]
    areas = set()
    for old, new in zip(batch["image"], result, strict=True):
        rows, columns = np.nonzero((old != new)[..., 0])
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width
        areas.add((height, width))
    assert (4, 4) in areas
    assert max(areas) == (4, 4)
    assert min(min(area) for area in areas) == 2
    assert batch["image"].min() > 0


def test_random_resized_crop_gives_one_size_from_any_size():
    for shape in [(40, 60), (60, 40), (9, 200), (200, 9)]:
        for seed in range(20):
            element = {"image": images(*shape, 3)}
            result = augment.random_resized_crop(element, rng(seed), size=16)["image"]
            assert result.shape == (16, 16, 3)
            assert result.dtype == np.uint8


def test_random_resized_crop_windows_keep_area_and_ratio():
    windows = [augment._window(100, 120, rng(s), (0.08, 1.0), (3 / 4, 4 / 3)) for s in range(500)]
    shares = []
    for left, top, width, height in windows:
        assert left >= 0
        assert top >= 0
        assert left + width <= 120
        assert top + height <= 100
        assert 0.7 < width / height < 1.4
        shares.append(width * height / 12000)
    # Draws that fit are those of smaller areas, so the mean lies below that of U(0.08, 1) = 0.54.
    assert 0.3 < np.mean(shares) < 0.54
    assert min(shares) > 0.07


def test_a_window_that_never_fits_falls_back_to_the_centre():
    assert augment._window(10, 1000, rng(), (1, 1), (3 / 4, 4 / 3)) == (493, 0, 13, 10)
    assert augment._window(1000, 10, rng(), (1, 1), (3 / 4, 4 / 3)) == (0, 493, 10, 13)


def test_the_same_generator_state_gives_the_same_draws():
    batch = {"image": images(5, 6, 6, 3)}
    for transform in (augment.pad_and_crop, augment.flip):
        one, other = (transform(batch, rng(9))["image"] for _ in range(2))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("transform", [augment.pad_and_crop, augment.cutout])
def test_batch_transforms_refuse_a_single_example(transform):
    settings = {"size": 2} if transform is augment.cutout else {}
    with pytest.raises(ValueError, match="batch of images"):
        transform({"image": images(4, 4, 3)}, rng(), **settings)
