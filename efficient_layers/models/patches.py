# SPDX-License-Identifier: Apache-2.0
"""Images of one size, cut into square patches: what ViT and MLP-Mixer refuse."""

import jax
from flax import nnx


def check_patches(family: str, image_size: int, patch_size: int) -> None:
    """ValueError unless `patch_size` divides `image_size`; names the nearest size that it does."""
    if patch_size < 1:
        raise ValueError(f"{family} expects a patch_size of at least 1. Got {patch_size}.")
    if image_size < 1 or image_size % patch_size:
        near = max(1, round(image_size / patch_size)) * patch_size
        raise ValueError(
            f"{family} expects an image_size that patch_size={patch_size} divides. "
            f"Got image_size={image_size}: {near} is the nearest."
        )


def check_images(model: nnx.Module, x: jax.Array, image_size: int, channels: int) -> None:
    """ValueError unless `x` is (b, image_size, image_size, channels)."""
    if x.ndim != 4 or x.shape[1:] != (image_size, image_size, channels):
        raise ValueError(
            f"This {type(model).__name__} expects images of shape (batch, {image_size}, "
            f"{image_size}, {channels}). Got {x.shape}. Resize them, or pass image_size=... (and "
            "in_channels=...) to create."
        )
