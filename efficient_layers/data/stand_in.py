# SPDX-License-Identifier: Apache-2.0
"""Stand-in data shaped like a data set, for trying a job without having the data (`--smoke`)."""

import numpy as np

from efficient_layers.data import tfds
from efficient_layers.data.source import Element, Source, Subset
from efficient_layers.data.splits import Info, Splits, sizes
from efficient_layers.data.tfds_text import TextFeatures, make_tokenizer, text_info

KNOWN: dict[str, tuple[tuple[int | None, int | None, int], int]] = {
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "mnist": ((28, 28, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "svhn_cropped": ((32, 32, 3), 10),
    "stl10": ((96, 96, 3), 10),
    "imagenet2012": ((None, None, 3), 1000),
    "imagenet_v2": ((None, None, 3), 1000),
    "imagenette": ((None, None, 3), 10),
    "oxford_flowers102": ((None, None, 3), 102),
}
"""Image shape and number of classes, for where TFDS itself cannot tell."""

FREE_SIZES = ((96, 128), (128, 96), (112, 112))
"""Sizes (h, w) that images of no fixed size take in turn."""

TRAIN_EXAMPLES, HELD_OUT_EXAMPLES = 4096, 64


class Noise:
    """Random uint8 images [h, w, c] made on demand from (seed, row); label = row % num_classes."""

    def __init__(
        self,
        examples: int,
        image_shape: tuple[int | None, int | None, int],
        num_classes: int,
        seed: int,
    ) -> None:
        self.examples, self.num_classes, self.seed = examples, num_classes, seed
        self.image_shape = image_shape

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, row: int) -> Element:
        if not 0 <= row < self.examples:
            raise IndexError(f"Row {row} is outside [0, {self.examples}).")
        height, width, channels = self.image_shape
        free = FREE_SIZES[row % len(FREE_SIZES)]
        shape = (height or free[0], width or free[1], channels)
        rng = np.random.default_rng((self.seed, row))
        pixels = rng.integers(0, 256, size=shape, dtype=np.uint8)
        return {"image": pixels, "label": np.int32(row % self.num_classes)}


class TokenNoise:
    """Random tokens below `vocabulary` from (seed, row); rows with a label are half to all full.

    Without labels (`num_classes` 0) rows are full and have no mask.
    """

    def __init__(
        self, examples: int, length: int, vocabulary: int, num_classes: int, seed: int
    ) -> None:
        self.examples, self.length, self.vocabulary = examples, length, vocabulary
        self.num_classes, self.seed = num_classes or None, seed

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, row: int) -> Element:
        if not 0 <= row < self.examples:
            raise IndexError(f"Row {row} is outside [0, {self.examples}).")
        rng = np.random.default_rng((self.seed, row))
        tokens = rng.integers(0, self.vocabulary, self.length, dtype=np.int32)
        if self.num_classes is None:
            return {"tokens": tokens}
        mask = np.arange(self.length) < rng.integers(self.length // 2, self.length + 1)
        label = np.int32(row % self.num_classes)
        return {"tokens": tokens, "token_mask": mask.astype(np.float32), "label": label}


def shortened(splits: Splits) -> Splits:
    """The same data with at most 64 examples in validation and test."""

    def few(source: Source) -> Source:
        return Subset(source, range(min(len(source), HELD_OUT_EXAMPLES)))

    validation = None if splits.validation is None else few(splits.validation)
    test = few(splits.test)
    info = splits.info.sized(sizes(splits.train, validation, test))
    return Splits(splits.train, validation, test, info)


def load_text_stand_in(
    name: str,
    features: TextFeatures,
    *,
    length: int = 128,
    vocabulary_file: str = "",
    seed: int = 0,
) -> Splits:
    """Random tokens with the length, vocabulary and classes of a TFDS text data set."""
    counts = (TRAIN_EXAMPLES, HELD_OUT_EXAMPLES, HELD_OUT_EXAMPLES)
    vocabulary = make_tokenizer(vocabulary_file).vocabulary
    train, validation, test = (
        TokenNoise(count, length, vocabulary, len(features.class_names), 3 * seed + part)
        for part, count in enumerate(counts)
    )
    provenance = f"stand-in: random tokens shaped like {name}, seed {seed}; NOT the data set"
    info = text_info(f"tfds:{name}", features, length, vocabulary, provenance)
    return Splits(train, validation, test, info.sized(sizes(train, validation, test)))


def load_stand_in(name: str, *, data_dir: str | None = None, seed: int = 0) -> Splits:
    """Noise with the shapes and classes of "digits" or "tfds:NAME"; the same for the same seed.

    The shapes come from the prepared data set, else from TFDS's own description of it, else from a
    small table. Train covers every class.

    Raises:
        ValueError: nobody knows the shape of this name.
    """
    shape, names = _describe(name, data_dir)
    train_examples = max(TRAIN_EXAMPLES, len(names))
    counts = (train_examples, HELD_OUT_EXAMPLES, HELD_OUT_EXAMPLES)
    train, validation, test = (
        Noise(count, shape, len(names), 3 * seed + part) for part, count in enumerate(counts)
    )
    info = Info(
        name=name,
        num_classes=len(names),
        image_shape=shape,
        class_names=names,
        provenance=f"stand-in: random images shaped like {name}, seed {seed}; NOT the data set",
        sizes=sizes(train, validation, test),
    )
    return Splits(train, validation, test, info)


def _describe(
    name: str, data_dir: str | None
) -> tuple[tuple[int | None, int | None, int], tuple[str, ...]]:
    if name == "digits":
        return (8, 8, 1), tuple("0123456789")
    bare = name.removeprefix("tfds:")
    try:
        features = tfds.features_of(tfds.builder_of(bare, data_dir))
        return features.image_shape, features.class_names
    except (ImportError, AttributeError):
        known = KNOWN.get(bare.split(":")[0])
        if known is None:
            raise
        shape, num_classes = known
        return shape, tuple(map(str, range(num_classes)))
