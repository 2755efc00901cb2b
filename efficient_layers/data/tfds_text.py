# SPDX-License-Identifier: Apache-2.0
"""Text of TensorFlow Datasets, read without TensorFlow: labelled texts, or a corpus in windows.

A data set with one Text and one ClassLabel (`glue/sst2`) gives a padded row a text; one with a Text
alone (`tiny_shakespeare`) is joined into a corpus, which is held in memory.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from efficient_layers.data.arrays import Cached
from efficient_layers.data.source import Element, Rows, Source
from efficient_layers.data.splits import Info, Splits, sizes, split_train
from efficient_layers.data.tfds import builder_of, check_splits, prepared_builder
from efficient_layers.data.tokens import ByteTokenizer, Texts, Tokenizer, Windows
from efficient_layers.data.word_piece import WordPiece

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder


@dataclass(frozen=True)
class TextFeatures:
    """What a text data set holds: the keys of text and label (None: no label), its classes."""

    full_name: str
    text_key: str
    label_key: str | None
    class_names: tuple[str, ...]


# For where TFDS itself cannot tell: key of the text, key of the label, number of classes.
KNOWN: dict[str, tuple[str, str | None, int]] = {
    "glue/sst2": ("sentence", "label", 2),
    "glue/cola": ("sentence", "label", 2),
    "imdb_reviews": ("text", "label", 2),
    "ag_news_subset": ("description", "label", 4),
    "tiny_shakespeare": ("text", None, 0),
    "lm1b": ("text", None, 0),
    "wiki40b/en": ("text", None, 0),
}


def describe_text(name: str, data_dir: str | None) -> TextFeatures | None:
    """What is known about a text data set, prepared or not; None where it is none."""
    known = KNOWN.get(name.split(":")[0])
    try:
        found = text_features_of(builder_of(name, data_dir))
    except (ImportError, AttributeError, ValueError):
        found = None
    if found is None and known is not None:
        text, label, classes = known
        found = TextFeatures(name, text, label, tuple(map(str, range(classes))))
    return found


def text_features_of(builder: "DatasetBuilder") -> TextFeatures | None:
    """The one Text and at most one ClassLabel of a data set without images; None for another."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    texts = [key for key, kind in features.items() if isinstance(kind, tfds.features.Text)]
    labels = [key for key, kind in features.items() if isinstance(kind, tfds.features.ClassLabel)]
    pictured = any(isinstance(kind, tfds.features.Image) for kind in features.values())
    keys = builder.info.supervised_keys
    if keys and keys[0] in texts:
        texts = [keys[0]]
    if pictured or len(texts) != 1 or len(labels) > 1:
        return None
    names: tuple[str, ...] = ()
    if labels:
        label = features[labels[0]]
        names = tuple(label.names or map(str, range(label.num_classes)))
    return TextFeatures(builder.info.full_name, texts[0], labels[0] if labels else None, names)


class TfdsTexts:
    """One split of a prepared data set: text (bytes), label int32. Sent to workers by name."""

    def __init__(self, name: str, split: str, data_dir: str | None, features: TextFeatures) -> None:
        self.name, self.split, self.data_dir, self.features = name, split, data_dir, features
        self.num_classes = len(features.class_names) or None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_records"}

    @cached_property
    def _records(self) -> Any:
        return prepared_builder(self.name, self.data_dir).as_data_source(split=self.split)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, row: int) -> Element:
        return self._read(self._records[int(row)])

    def read_many(self, rows: Rows) -> list[Element]:
        """The examples at `rows`; one read of the files for all of them."""
        return [self._read(record) for record in self._records.__getitems__(rows.tolist())]

    def _read(self, record: Element) -> Element:
        label = record[self.features.label_key] if self.features.label_key else -1
        text = record[self.features.text_key]
        return {"text": text if isinstance(text, bytes) else str(text).encode(), "label": label}


def load_tfds_text(
    name: str,
    *,
    features: TextFeatures,
    data_dir: str | None = None,
    length: int = 128,
    vocabulary_file: str = "",
    validation_fraction: float = 0.15,
    seed: int = 0,
    test_split: str = "test",
    cache: bool = False,
) -> Splits:
    """Splits of a text data set; a corpus with a validation split of its own uses that.

    Raises:
        MissingDataError: it is not prepared in `data_dir`.
        ValueError: a split is missing, or shorter than one row.
    """
    builder = prepared_builder(name, data_dir)
    available = list(builder.info.splits)
    check_splits(name, available, "train", None, test_split)
    tokenizer = make_tokenizer(vocabulary_file)

    def source(split: str) -> Source:
        texts = TfdsTexts(name, split, data_dir, features)
        if features.label_key is None:
            return Windows(corpus(texts, tokenizer), length)
        rows = Texts(texts, tokenizer, length)
        return Cached(rows) if cache else rows

    train: Source = source("train")
    validation: Source | None
    if features.label_key is None and "validation" in available and test_split != "validation":
        validation, rule = source("validation"), "validation"
    else:
        train, validation = split_train(train, validation_fraction, seed)
        rule = f"{validation_fraction:g} of train by seed {seed}"
    test = source(test_split)
    provenance = (
        f"TensorFlow Datasets {features.full_name} in {builder.data_path}; validation: {rule}; "
        f"test: {test_split}; tokens: {vocabulary_file or 'bytes'}"
    )
    info = text_info(f"tfds:{name}", features, length, tokenizer.vocabulary, provenance)
    return Splits(train, validation, test, info.sized(sizes(train, validation, test)))


def text_info(
    name: str, features: TextFeatures, length: int, vocabulary: int, provenance: str
) -> Info:
    """The facts about a text data set; its sizes are not known yet."""
    return Info(
        name=name,
        num_classes=len(features.class_names),
        image_shape=(),
        class_names=features.class_names,
        provenance=provenance,
        length=length,
        vocabulary=vocabulary,
        padded=features.label_key is not None,
    )


def make_tokenizer(vocabulary_file: str) -> Tokenizer:
    """WordPiece over a vocabulary file; bytes where none is named."""
    return WordPiece(vocabulary_file) if vocabulary_file else ByteTokenizer()


def corpus(texts: TfdsTexts, tokenizer: Tokenizer) -> np.ndarray:
    """All texts as one row of tokens, a blank line between two."""
    between = tokenizer(b"\n\n")
    rows = [tokenizer(texts[row]["text"]) for row in range(len(texts))]
    return np.concatenate([piece for row in rows for piece in (row, between)][:-1])
