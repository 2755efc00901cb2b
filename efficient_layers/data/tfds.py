# SPDX-License-Identifier: Apache-2.0
"""Any image classification data set of TensorFlow Datasets, read without TensorFlow.

TFDS names and prepares the data; a prepared data set is ArrayRecord files, read here by random
access. Images are decoded by Pillow. Nothing is ever downloaded: what is not prepared is an error
that names the command which prepares it.
"""

import contextlib
import io
import os
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from efficient_layers.data.arrays import Cached
from efficient_layers.data.source import Element, Rows, Source
from efficient_layers.data.splits import Info, Splits, sizes, split_train

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of an 8-bit image by its number of channels."""


class MissingDataError(FileNotFoundError):
    """A data set is not prepared on this machine; the message has the command that does it."""


@dataclass(frozen=True)
class Features:
    """What a TFDS data set holds: the keys of image and label, their shape and classes."""

    full_name: str
    image_key: str
    label_key: str
    image_shape: tuple[int | None, int | None, int]
    class_names: tuple[str, ...]


class TfdsSource:
    """One split of a prepared data set: image uint8 [h, w, c], label int32.

    It is sent to worker processes as names alone; each opens the files itself.
    """

    def __init__(self, name: str, split: str, data_dir: str | None) -> None:
        self.name, self.split, self.data_dir = name, split, data_dir
        self._features = features_of(prepared_builder(name, data_dir))
        self.num_classes = len(self._features.class_names)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_records"}

    @cached_property
    def _records(self) -> Any:
        import tensorflow_datasets as tfds

        builder = prepared_builder(self.name, self.data_dir)
        decoders = {self._features.image_key: tfds.decode.SkipDecoding()}
        return builder.as_data_source(split=self.split, decoders=decoders)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, row: int) -> Element:
        return self._decoded(self._records[int(row)])

    def read_many(self, rows: Rows) -> list[Element]:
        """The examples at `rows`; one read of the files for all of them."""
        return [self._decoded(record) for record in self._records.__getitems__(rows.tolist())]

    def _decoded(self, record: Element) -> Element:
        features = self._features
        image = decode_image(record[features.image_key], features.image_shape[-1])
        return {"image": image, "label": np.int32(record[features.label_key])}


def load_tfds(
    name: str,
    *,
    data_dir: str | None = None,
    validation_fraction: float = 0.15,
    seed: int = 0,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str = "test",
    cache: bool = False,
) -> Splits:
    """Splits of a TFDS data set (`"cifar10"`, `"cifar10:3.0.2"`), validation carved from train.

    With `validation_split` that split is the validation instead, and train is left whole.

    Raises:
        MissingDataError: it is not prepared in `data_dir`.
        ValueError: a split is missing or named twice, or there is no image with a class label.
    """
    builder = prepared_builder(name, data_dir)
    check_splits(name, list(builder.info.splits), train_split, validation_split, test_split)
    features = features_of(builder)

    def source(split: str) -> Source:
        records = TfdsSource(name, split, data_dir)
        return Cached(records) if cache else records

    if validation_split is None:
        train, validation = split_train(source(train_split), validation_fraction, seed)
        rule = f"validation: {validation_fraction:g} of {train_split} by seed {seed}"
    else:
        train, validation = source(train_split), source(validation_split)
        rule = f"validation: {validation_split}"
    test = source(test_split)
    info = Info(
        name=f"tfds:{name}",
        num_classes=len(features.class_names),
        image_shape=features.image_shape,
        class_names=features.class_names,
        provenance=(
            f"TensorFlow Datasets {features.full_name} in {builder.data_path}; train: "
            f"{train_split}; {rule}; test: {test_split}"
        ),
        sizes=sizes(train, validation, test),
    )
    return Splits(train, validation, test, info)


def builder_of(name: str, data_dir: str | None) -> "DatasetBuilder":
    """The TFDS builder of a name, prepared or not; imports no TensorFlow and reads no network.

    What lies in `data_dir` comes first, read without the code that made it; TFDS's own
    description of the data set serves where nothing is prepared.

    Raises:
        ValueError: TFDS knows no such name, configuration or version.
        ImportError: nothing is prepared, and TFDS needs TensorFlow to describe this data set.
    """
    import tensorflow_datasets as tfds

    with contextlib.suppress(tfds.core.DatasetNotFoundError):
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
    try:
        return tfds.builder(name, data_dir=data_dir)
    except AssertionError as error:  # what TFDS raises for a version it does not know
        raise ValueError(f"tfds:{name}: {error}") from None
    except tfds.core.DatasetNotFoundError as error:
        # TFDS appends every name it knows, over a thousand lines: the nearest ones say enough.
        known = [line.strip("\t -") for line in str(error).splitlines() if line.startswith("\t")]
        raise ValueError(_unknown_name(name, known)) from None


def prepared_builder(name: str, data_dir: str | None) -> "DatasetBuilder":
    """The builder of a prepared data set in ArrayRecord form.

    Raises:
        MissingDataError: it is not there, or in another file format.
        ValueError: TFDS knows no such name.
    """
    try:
        builder = builder_of(name, data_dir)
    except ImportError:
        where = data_dir or "TFDS's default directory"
        reason = f"{where} does not have it"
        raise MissingDataError(_how_to_prepare(name, data_dir, reason)) from None
    if not builder.is_prepared():
        raise MissingDataError(_how_to_prepare(name, data_dir, f"{builder.data_path} is not there"))
    written = builder.info.file_format
    if written is None or written.value != "array_record":
        # TFDS keeps one format a directory (it refuses a second one), hence the other directory.
        elsewhere = os.path.join(data_dir or "tensorflow_datasets", "array_record")
        reason = (
            f"{builder.data_path} is written as {written and written.value}, and only array_record "
            f"can be read by random access; set data_dir to {elsewhere} afterwards"
        )
        raise MissingDataError(_how_to_prepare(name, elsewhere, reason))
    return builder


def features_of(builder: "DatasetBuilder") -> Features:
    """Image and label of a data set: its supervised keys, else those named "image" and "label".

    Raises:
        ValueError: there is no 8-bit image with a class label.
    """
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    keys = builder.info.supervised_keys or ("image", "label")
    image, label = (features.get(key) if isinstance(key, str) else None for key in keys[:2])
    pictured = isinstance(image, tfds.features.Image) and image.shape[-1] in MODES
    if image is None or not pictured or not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            f"tfds:{builder.info.full_name} is no image classification data set with 8-bit images: "
            f"its features are {sorted(features)}. Write a source of your own (len and [i] that "
            'gives {"image", "label"}) for it.'
        )
    names = tuple(label.names or map(str, range(label.num_classes)))
    height, width, channels = image.shape
    return Features(builder.info.full_name, keys[0], keys[1], (height, width, channels), names)


def check_splits(
    name: str, available: list[str], train: str, validation: str | None, test: str
) -> None:
    """Every wanted split must exist, and none may serve two purposes.

    Raises:
        ValueError: names the available splits and the setting to change.
    """
    wanted = {"train_split": train, "validation_split": validation, "test_split": test}
    for setting, split in wanted.items():
        if split is not None and split.split("[")[0] not in available:
            raise ValueError(
                f"tfds:{name} has no split {split!r} ({setting}); it has {', '.join(available)}. "
                f"{_split_advice(setting, [one for one in available if one != train])}"
            )
    named = [split for split in wanted.values() if split is not None]
    if len(set(named)) < len(named):
        raise ValueError(f"Each split may serve one purpose only; got {wanted}.")


def decode_image(encoded: bytes, channels: int) -> np.ndarray:
    """PNG or JPEG bytes to uint8 [h, w, channels]."""
    with Image.open(io.BytesIO(encoded)) as picture:
        pixels = np.asarray(picture.convert(MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _split_advice(setting: str, free: list[str]) -> str:
    if setting == "test_split" and not free:
        return "Cut a test out of it: train_split='train[:80%]', test_split='train[80%:]'."
    if setting == "test_split":
        return (
            f"Name a labelled one to be read once as the test, test_split={free[-1]!r}; validation "
            "is carved from train either way."
        )
    return f"Set {setting} to one of them."


def _how_to_prepare(name: str, data_dir: str | None, reason: str) -> str:
    # Not TFDS's own command line: it imports Apache Beam, which nothing here needs (4.9.10: tried).
    where = "" if data_dir is None else f', data_dir="{data_dir}"'
    code = (
        "import tensorflow_datasets as tfds; "
        f'tfds.builder("{name}"{where}, file_format="array_record").download_and_prepare()'
    )
    return (
        f"tfds:{name} is not prepared: {reason}. Prepare it once (this downloads it, and needs "
        "TensorFlow, which training does not):\n"
        "  pip install '.[prepare]'\n"
        f"  python -c {shlex.quote(code)}\n"
        "or point data_dir at a directory that has it, or try the job with --smoke."
    )


def _unknown_name(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name.split(":")[0].split("/")[0], known, n=3)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    return f"TensorFlow Datasets has no data set {name!r}.{hint}"
