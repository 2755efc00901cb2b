# SPDX-License-Identifier: Apache-2.0
"""Deterministic transforms against the formulas and against Pillow."""

import numpy as np
import pytest
from PIL import Image

from efficient_layers.data import transforms

pytestmark = pytest.mark.fast


def picture(*shape, dtype=np.uint8):
    values = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    return values.astype(dtype)


@pytest.mark.parametrize("shape", [(5, 4, 3), (2, 5, 4, 3), (2, 5, 4, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalise_is_the_formula(shape, dtype):
    channels = shape[-1]
    mean, std = [0.5, 0.4, 0.3][:channels], [0.2, 0.1, 0.3][:channels]
    image = picture(*shape, dtype=dtype)
    unit = image / 255 if dtype == np.uint8 else image.astype(np.float64)
    expected = (unit - np.array(mean)) / np.array(std)
    result = transforms.normalise({"image": image}, mean=mean, std=std)["image"]
    assert result.dtype == np.float32
    assert result.shape == shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_normalise_takes_one_number_for_all_channels_and_keeps_its_input():
    image = picture(2, 4, 4, 3)
    before = image.copy()
    result = transforms.normalise({"image": image, "label": 1}, mean=[0.5], std=[0.5])
    np.testing.assert_allclose(result["image"], before / 127.5 - 1, atol=1e-5)
    np.testing.assert_array_equal(image, before)
    assert result["label"] == 1


def test_normalise_refuses_the_wrong_statistics():
    with pytest.raises(ValueError, match=r"mean needs one value per channel \(3\)"):
        transforms.normalise({"image": picture(4, 4, 3)}, mean=[0, 0], std=[1])
    with pytest.raises(ValueError, match="std must be positive"):
        transforms.normalise({"image": picture(4, 4, 3)}, mean=[0], std=[0])


def test_to_float_scales_bytes_only():
    bytes_, floats = picture(3, 3, 1), np.full((3, 3, 1), 7, np.float64)
    scaled = transforms.to_float({"image": bytes_})["image"]
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, bytes_ / 255, rtol=1e-6)
    kept = transforms.to_float({"image": floats})["image"]
    assert kept.dtype == np.float32
    assert (kept == 7).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_pillows(channels):
    image = picture(9, 7, channels)
    result = transforms.resize({"image": image}, size=(5, 11))["image"]
    for channel in range(channels):
        expected = Image.fromarray(image[..., channel]).resize((11, 5), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(result[..., channel], np.asarray(expected))


def test_resize_of_a_batch_is_that_of_its_images():
    images = picture(3, 9, 7, 3)
    result = transforms.resize({"image": images}, size=6)["image"]
    assert result.shape == (3, 6, 6, 3)
    one = transforms.resize({"image": images[1]}, size=6)["image"]
    np.testing.assert_array_equal(result[1], one)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_resize_of_other_types_and_channels(dtype):
    image = np.full((6, 6, 5), 40, dtype)
    result = transforms.resize({"image": image}, size=3)["image"]
    assert result.dtype == dtype
    assert result.shape == (3, 3, 5)
    assert (result == 40).all()


@pytest.mark.parametrize(("shape", "expected"), [((40, 80), (20, 40)), ((90, 60), (30, 20))])
def test_resize_shorter_keeps_the_aspect_ratio(shape, expected):
    result = transforms.resize_shorter({"image": picture(*shape, 3)}, size=20)["image"]
    assert result.shape == (*expected, 3)


def test_center_crop():
    image = np.arange(5 * 6).reshape(5, 6, 1)
    result = transforms.center_crop({"image": image}, size=(3, 2))["image"]
    np.testing.assert_array_equal(result, image[1:4, 2:4])
    with pytest.raises(ValueError, match="resize_shorter"):
        transforms.center_crop({"image": image}, size=6)
