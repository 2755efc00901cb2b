# SPDX-License-Identifier: Apache-2.0
"""Random image transforms for training, NumPy and Pillow only.

Each is `(examples, rng) -> examples` on the key "image" and leaves its input untouched; bind the
settings with `functools.partial`. The pipeline hands in a generator that depends on the run's
seed and the batch's number alone, so a resumed run repeats every draw. `pad_and_crop`, `flip` and
`cutout` take a batch of equal shapes and work on whole arrays: put them first, on uint8, where
they move a quarter of the bytes. `random_resized_crop` takes one example of any size.

Examples drawn for a batch differ between shards: several hosts see the same rows as one host, in
the same order, with other crops and flips. Element transforms draw the same everywhere.
"""

from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from efficient_layers.data.transforms import resize_image

Examples = dict[str, Any]
Images = Shaped[np.ndarray, "b h w c"]


def pad_and_crop(
    batch: Examples, rng: np.random.Generator, *, padding: int = 4, fill: float = 0
) -> Examples:
    """Shift each image by up to `padding` pixels in h and w; what comes in is `fill`.

    The same as padding every side and cutting the old size out of it at random, the standard
    augmentation of CIFAR (He et al., Deep Residual Learning, 2015, arXiv 1512.03385, section 4.2).
    """
    images = _batch_of_images(batch, "pad_and_crop")
    count, height, width, _ = images.shape
    corners = rng.integers(0, 2 * padding + 1, size=(count, 2))
    margins = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images, margins, constant_values=fill)
    cropped = np.empty_like(images)
    for row, (top, left) in enumerate(corners.tolist()):
        cropped[row] = padded[row, top : top + height, left : left + width]
    return batch | {"image": cropped}


def flip(batch: Examples, rng: np.random.Generator, *, probability: float = 0.5) -> Examples:
    """Mirror left and right with the given probability: a batch row by row, or one example."""
    images = batch["image"]
    if images.ndim == 3:
        mirrored = rng.random() < probability
        return batch | {"image": images[:, ::-1] if mirrored else images}
    chosen = rng.random(len(_batch_of_images(batch, "flip"))) < probability
    flipped = images.copy()
    flipped[chosen] = images[chosen, :, ::-1]
    return batch | {"image": flipped}


def cutout(batch: Examples, rng: np.random.Generator, *, size: int, fill: float = 0) -> Examples:
    """Cover one `size` x `size` square of each image; its centre is anywhere, so it may stick out.

    DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
    arXiv 1708.04552, section 3.
    """
    images = _batch_of_images(batch, "cutout").copy()
    count, height, width, _ = images.shape
    corners = rng.integers(0, (height, width), size=(count, 2)) - size // 2
    for row, (top, left) in enumerate(corners.tolist()):
        images[row, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = fill
    return batch | {"image": images}


def random_resized_crop(
    element: Examples,
    rng: np.random.Generator,
    *,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Examples:
    """Cut out a window of random area share and aspect ratio and resize it to `size` x `size`.

    Ten draws look for a window that fits; after that the largest central one of an allowed ratio
    is taken (Szegedy et al., Going Deeper with Convolutions, 2014, arXiv 1409.4842, section 6).
    """
    image = element["image"]
    left, top, width, height = _window(image.shape[0], image.shape[1], rng, scale, ratio)
    box = (left, top, left + width, top + height)
    bicubic = Image.Resampling.BICUBIC
    return element | {"image": resize_image(image, size, size, box=box, resample=bicubic)}


def _window(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random window inside a height x width image."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
            return int(left), int(top), w, h
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (width - w) // 2, (height - h) // 2, w, h


def _batch_of_images(batch: Examples, name: str) -> Images:
    images = batch["image"]
    if images.ndim != 4:
        raise ValueError(
            f"{name} works on a batch of images [b, h, w, c]; got shape {images.shape}. Give it "
            "as a batch transform, after element transforms that make the shapes equal."
        )
    return images
