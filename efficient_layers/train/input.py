# SPDX-License-Identifier: Apache-2.0
"""What a run reads: `config.data` -> sources, transforms, batches."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from efficient_layers import data
from efficient_layers.data import transforms
from efficient_layers.data.source import Source, Subset
from efficient_layers.learn import augment

SMOKE_BATCH = 8  # the least that divides over eight devices
EVAL_RESIZE = 256 / 224  # shorter side before the centre crop, as a share of the image size

Transform = Callable[..., dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Input:
    """The splits of a run and how batches are made of them.

    `image_shape` is (h, w, c) of what the model sees. Batches: see `el.data`.
    """

    info: data.Info
    train: Source
    validation: Source | None
    test: Source | None
    image_shape: tuple[int, int, int]
    batch_size: int
    eval_batch_size: int
    seed: int
    workers: int
    train_elements: tuple[Transform, ...]
    train_batch: tuple[Transform, ...]
    eval_elements: tuple[Transform, ...]
    eval_batch: tuple[Transform, ...]

    def train_batches(self) -> data.TrainIterator:
        """Endless, reshuffled each epoch; its position can be stored. Close it after use."""
        return data.train_iterator(
            self.train,
            batch_size=self.batch_size,
            seed=self.seed,
            element_transforms=self.train_elements,
            batch_transforms=self.train_batch,
            workers=self.workers,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
        )

    def validation_batches(self) -> Iterable[dict[str, np.ndarray]] | None:
        """Each validation example once, or None where the run has no validation split."""
        return self._eval_batches(self.validation)

    def test_batches(self) -> Iterable[dict[str, np.ndarray]] | None:
        """Each test example once, or None where the run has no test split."""
        return self._eval_batches(self.test)

    def batch_spec(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each array of a training batch, over all devices."""
        return {
            "image": ((self.batch_size, *self.image_shape), jnp.float32),
            "label": ((self.batch_size,), jnp.int32),
        }

    def example(self) -> jax.Array:
        """One image of zeros with a batch axis: what cost and latency are measured on."""
        return jnp.zeros((1, *self.image_shape), jnp.float32)

    @property
    def provenance(self) -> dict[str, Any]:
        """Which data these are, for environment.json."""
        return self.info.to_json()

    def _eval_batches(self, source: Source | None) -> Iterable[dict[str, np.ndarray]] | None:
        if source is None or not len(source):
            return None
        return data.eval_batches(
            source,
            batch_size=self.eval_batch_size,
            element_transforms=self.eval_elements,
            batch_transforms=self.eval_batch,
            workers=0,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
        )


def make_input(
    config: ConfigDict, *, smoke: bool = False, stand_in: bool = False, overfit_batches: int = 0
) -> Input:
    """The input that `config.data` describes.

    `stand_in` takes random data of the same shape, `smoke` small batches of them besides;
    `overfit_batches` trains and validates on that many fixed batches without augmentation.

    Raises:
      ValueError: sizes that do not fit, unknown names; data sets that are not there raise
        `el.data`'s error with the command that prepares them.
    """
    settings = config.data
    of_tfds = {"test_split": settings.test_split, "cache": settings.cache}
    splits = data.load(
        settings.name,
        data_dir=settings.data_dir or None,
        validation_fraction=settings.validation_fraction,
        seed=settings.split_seed,
        stand_in=smoke or stand_in,
        **(of_tfds if settings.name.startswith("tfds:") else {}),
    )
    train, validation = splits.train, splits.validation
    batch, eval_batch = settings.batch_size, settings.eval_batch_size
    if smoke:
        batch = eval_batch = max(SMOKE_BATCH, jax.device_count())
    if overfit_batches:
        train = validation = Subset(train, range(min(len(train), overfit_batches * batch)))
    if batch > len(train) and not stand_in:
        raise ValueError(
            f"data.batch_size={batch} is more than the {len(train)} training examples of "
            f"{splits.info.name}; choose a smaller batch"
        )
    shape = _image_shape(settings, splits.info)
    plain = bool(overfit_batches) or settings.crop == "none"
    normalise = _normalise(settings)
    return Input(
        info=splits.info,
        train=train,
        validation=validation,
        test=splits.test,
        image_shape=shape,
        batch_size=batch,
        eval_batch_size=eval_batch,
        seed=config.seed,
        workers=settings.workers,
        train_elements=_eval_elements(settings, splits.info)
        if plain
        else _train_elements(settings, splits.info),
        train_batch=(*(() if overfit_batches else _augmentations(settings)), *normalise),
        eval_elements=_eval_elements(settings, splits.info),
        eval_batch=normalise,
    )


def _image_shape(settings: ConfigDict, info: data.Info) -> tuple[int, int, int]:
    height, width, channels = info.image_shape
    if settings.image_size:
        return settings.image_size, settings.image_size, channels
    if height is None or width is None:
        raise ValueError(
            f"the images of {info.name} differ in size: set config.data.image_size (224, say)"
        )
    return height, width, channels


def _train_elements(settings: ConfigDict, info: data.Info) -> tuple[Transform, ...]:
    """Transforms of single examples: where sizes differ, or a crop is resized."""
    if settings.crop == "random_resized":
        size = _image_shape(settings, info)[0]
        return (partial(augment.random_resized_crop, size=size),)
    return _eval_elements(settings, info)


def _eval_elements(settings: ConfigDict, info: data.Info) -> tuple[Transform, ...]:
    size = settings.image_size
    if not size or (size, size) == info.image_shape[:2]:
        return ()
    if settings.crop == "random_resized":
        shorter = round(size * EVAL_RESIZE)
        return (
            partial(transforms.resize_shorter, size=shorter),
            partial(transforms.center_crop, size=size),
        )
    return (partial(transforms.resize, size=size),)


def _augmentations(settings: ConfigDict) -> tuple[Transform, ...]:
    if settings.crop not in ("none", "pad", "random_resized"):
        raise ValueError(
            f"data.crop must be 'none', 'pad' or 'random_resized'; got {settings.crop!r}"
        )
    chosen: list[Transform] = []
    if settings.crop == "pad":
        chosen.append(partial(augment.pad_and_crop, padding=settings.padding))
    if settings.flip:
        chosen.append(augment.flip)
    return tuple(chosen)


def _normalise(settings: ConfigDict) -> tuple[Transform, ...]:
    if not settings.mean and not settings.std:
        return (transforms.to_float,)
    return (partial(transforms.normalise, mean=tuple(settings.mean), std=tuple(settings.std)),)
