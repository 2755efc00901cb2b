# SPDX-License-Identifier: Apache-2.0
"""Data: a source with random access -> a Grain pipeline -> batches of NumPy arrays.

>>> from efficient_layers import data
>>> splits = data.load("digits")
>>> batch = next(data.train_iterator(splits.train, batch_size=32, seed=0))
>>> batch["image"].shape, str(batch["image"].dtype)
((32, 8, 8, 1), 'float32')

A source is anything with `len(source)` and `source[i] -> {"image": ..., "label": ...}`.
"""

from efficient_layers.data import transforms
from efficient_layers.data.arrays import Arrays, Cached
from efficient_layers.data.pipeline import EvalBatches, TrainIterator, eval_batches, train_iterator
from efficient_layers.data.registry import is_text, load
from efficient_layers.data.source import Batch, Element, Source, Subset
from efficient_layers.data.splits import Info, Splits
from efficient_layers.data.tfds import MissingDataError

__all__ = [
    "Arrays",
    "Batch",
    "Cached",
    "Element",
    "EvalBatches",
    "Info",
    "MissingDataError",
    "Source",
    "Splits",
    "Subset",
    "TrainIterator",
    "eval_batches",
    "is_text",
    "load",
    "train_iterator",
    "transforms",
]
