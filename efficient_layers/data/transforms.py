# SPDX-License-Identifier: Apache-2.0
"""Deterministic image transforms, NumPy and Pillow only: a dict in, a new dict out.

Each works on the key "image", for one example [h, w, c] or a batch [b, h, w, c], and leaves its
input untouched. Bind the settings with `functools.partial`; the pipeline takes the result:
`partial(normalise, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))`.
Random transforms live in `efficient_layers.learn.augment`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from efficient_layers.data.source import Element

Pixels = Shaped[np.ndarray, "*batch h w c"]


def to_float(element: Element) -> Element:
    """Image as float32: uint8 is divided by 255, a float keeps its scale."""
    return element | {"image": _unit_scale(element["image"])}


def normalise(element: Element, *, mean: Sequence[float], std: Sequence[float]) -> Element:
    """(image - mean) / std per channel, float32; uint8 counts as 0..1, as in `to_float`.

    Raises:
        ValueError: mean or std has neither one entry nor one a channel, or a std is not positive.
    """
    image = element["image"]
    channels = image.shape[-1]
    centre, spread = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    for name, values in (("mean", centre), ("std", spread)):
        if values.shape not in ((), (1,), (channels,)):
            raise ValueError(
                f"{name} needs one value per channel ({channels}); got shape {values.shape}."
            )
    if not (spread > 0).all():
        raise ValueError(f"std must be positive; got {std}.")
    scale = np.float32(255 if image.dtype == np.uint8 else 1)
    # Whole rows of w * c numbers: NumPy broadcasts over a last axis of 3 several times slower.
    rows = image.reshape(*image.shape[:-2], -1)
    shift, factor = (
        np.tile(np.broadcast_to(values, channels), image.shape[-2])
        for values in (centre * scale, 1 / (spread * scale))
    )
    result = rows - shift
    result *= factor
    return element | {"image": result.reshape(image.shape)}


def resize(element: Element, *, size: int | tuple[int, int]) -> Element:
    """Bilinear, antialiased, to (h, w) = `size` (one number: a square); dtype kept."""
    height, width = (size, size) if isinstance(size, int) else size
    image = element["image"]
    if image.ndim == 3:
        return element | {"image": resize_image(image, height, width)}
    return element | {"image": np.stack([resize_image(one, height, width) for one in image])}


def resize_shorter(element: Element, *, size: int) -> Element:
    """Scale one example so that its shorter side is `size`, aspect ratio kept."""
    height, width = element["image"].shape[-3:-1]
    scale = size / min(height, width)
    return resize(element, size=(round(height * scale), round(width * scale)))


def center_crop(element: Element, *, size: int | tuple[int, int]) -> Element:
    """The central (h, w) = `size` window.

    Raises:
        ValueError: the image is smaller than the window.
    """
    height, width = (size, size) if isinstance(size, int) else size
    image = element["image"]
    have = image.shape[-3:-1]
    if height > have[0] or width > have[1]:
        raise ValueError(
            f"center_crop to ({height}, {width}) needs a larger image; got {have}. Put "
            "resize_shorter before it."
        )
    top, left = (have[0] - height) // 2, (have[1] - width) // 2
    return element | {"image": image[..., top : top + height, left : left + width, :]}


def resize_image(
    image: Shaped[np.ndarray, "h w c"],
    height: int,
    width: int,
    *,
    box: tuple[float, float, float, float] | None = None,
    resample: int = Image.Resampling.BILINEAR,
) -> Shaped[np.ndarray, "{height} {width} c"]:
    """Resample with Pillow; `box` = (left, top, right, bottom) is cut out first, in pixels.

    uint8 with 1, 3 or 4 channels goes through Pillow in one piece, anything else a channel at a
    time in float32.
    """
    if image.dtype == np.uint8 and image.shape[-1] in (1, 3, 4):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        resized = np.asarray(picture.resize((width, height), resample, box=box))
        return resized.reshape(height, width, image.shape[-1])
    planes = [
        Image.fromarray(np.ascontiguousarray(plane, np.float32)).resize(
            (width, height), resample, box=box
        )
        for plane in np.moveaxis(image, -1, 0)
    ]
    result = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        result = result.round().clip(limits.min, limits.max)
    return result.astype(image.dtype)


def _unit_scale(image: Pixels) -> Float[np.ndarray, "*batch h w c"]:
    if image.dtype == np.uint8:
        return image * np.float32(1 / 255)
    return image.astype(np.float32, copy=False)
