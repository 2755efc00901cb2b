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

    `image_shape` is (h, w, c) of what the model sees, (n, c) of signals, () of tokens. Batches: see
    `el.data`.
    """

    info: data.Info
    train: Source
    validation: Source | None
    test: Source | None
    image_shape: tuple[int, ...]
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

    def calibration_batches(self, batches: int, batch_size: int) -> Iterable[dict[str, np.ndarray]]:
        """Some training examples, drawn by the seed, as evaluation sees them: not augmented."""
        count = min(len(self.train), batches * batch_size)
        chosen = np.random.default_rng(self.seed).choice(len(self.train), count, replace=False)
        return data.eval_batches(
            Subset(self.train, chosen.tolist()),
            batch_size=min(batch_size, count),
            element_transforms=self.eval_elements,
            batch_transforms=self.eval_batch,
            workers=0,
        )

    def batch_spec(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each array of a training batch, over all devices."""
        row = (self.batch_size,)
        label: dict[str, tuple[tuple[int, ...], Any]] = {"label": (row, jnp.int32)}
        if not self.info.vocabulary:
            return {"image": ((*row, *self.image_shape), jnp.float32)} | label
        whole = (*row, self.info.length)
        spec: dict[str, tuple[tuple[int, ...], Any]] = {"tokens": (whole, jnp.int32)}
        spec |= {"token_mask": (whole, jnp.float32)} if self.info.padded else {}
        spec |= {"target": (whole, jnp.int32)} if self.info.per_token else {}
        return spec | (label if self.info.num_classes else {})

    def example(self) -> jax.Array:
        """One image or row of zeros with a batch axis: what cost and latency are measured on."""
        if self.info.vocabulary:
            return jnp.zeros((1, self.info.length), jnp.int32)
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
    splits = data.load(
        settings.name,
        data_dir=settings.data_dir or None,
        validation_fraction=settings.validation_fraction,
        seed=settings.split_seed,
        stand_in=smoke or stand_in,
        **_load_options(settings),
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
    transformed = (
        _Transforms()
        if splits.info.vocabulary
        else _image_transforms(settings, splits.info, plain=bool(overfit_batches))
    )
    return Input(
        info=splits.info,
        train=train,
        validation=validation,
        test=splits.test,
        image_shape=_image_shape(settings, splits.info) if not splits.info.vocabulary else (),
        batch_size=batch,
        eval_batch_size=eval_batch,
        seed=config.seed,
        workers=settings.workers,
        **dataclasses.asdict(transformed),
    )


def _load_options(settings: ConfigDict) -> dict[str, Any]:
    """The settings that `data.load` takes for this data set."""
    options: dict[str, Any] = dict(settings.options)
    if settings.name.startswith("tfds:"):
        options |= {"test_split": settings.test_split, "cache": settings.cache}
        if data.is_text(settings.name, settings.data_dir or None):
            options |= {"length": settings.length, "vocabulary_file": settings.vocabulary_file}
    elif settings.name in ("stdlib", "listops", "mqar"):
        options["length"] = settings.length
    return options


@dataclasses.dataclass(frozen=True)
class _Transforms:
    """What is done to examples and batches."""

    train_elements: tuple[Transform, ...] = ()
    train_batch: tuple[Transform, ...] = ()
    eval_elements: tuple[Transform, ...] = ()
    eval_batch: tuple[Transform, ...] = ()


def _image_transforms(settings: ConfigDict, info: data.Info, *, plain: bool) -> _Transforms:
    """`plain`: training sees what evaluation sees."""
    evaluated, normalise = _eval_elements(settings, info), _normalise(settings)
    whole = plain or settings.crop == "none"
    return _Transforms(
        train_elements=evaluated if whole else _train_elements(settings, info),
        train_batch=(*(() if plain else _augmentations(settings)), *normalise),
        eval_elements=evaluated,
        eval_batch=normalise,
    )


def _image_shape(settings: ConfigDict, info: data.Info) -> tuple[int, ...]:
    *sizes, channels = info.image_shape
    if settings.image_size and len(sizes) == 2:
        sizes = [settings.image_size] * 2
    if None in sizes:
        raise ValueError(
            f"the images of {info.name} differ in size: set config.data.image_size (224, say)"
        )
    return tuple(int(size or 0) for size in (*sizes, channels))


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
