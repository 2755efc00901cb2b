# SPDX-License-Identifier: Apache-2.0
"""The stages of the Grain pipeline: rows -> examples -> transformed batch -> checked batch."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from efficient_layers.data.arrays import check_finite, check_labels
from efficient_layers.data.order import Order, Picked
from efficient_layers.data.source import Batch, Element, Source, read_batch, read_elements, stack
from efficient_layers.data.transforms import to_float

Transform = Callable[..., Element]
"""`(x) -> x`, or `(x, rng) -> x` where it draws random numbers; x is an example or a batch."""

MASK = "mask"
INDEX = "index"


def is_random(transform: Transform) -> bool:
    """Whether a transform takes `(x, rng)` rather than `(x)`: it is read off its signature.

    Raises:
        TypeError: it needs neither one nor two positional arguments.
    """
    required = [
        parameter
        for parameter in inspect.signature(transform).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    if len(required) not in (1, 2):
        raise TypeError(
            f"A transform is (x) -> x or (x, rng) -> x; {transform} needs {len(required)} "
            "arguments. Bind its settings with functools.partial(transform, name=value)."
        )
    return len(required) == 2


@dataclass(frozen=True)
class Read:
    """Fetch the rows of a batch, transform each example, stack them.

    Element transforms that draw get a generator of their own for each example, from (seed, batch
    number, place in the whole batch): the same on any number of shards.
    """

    source: Source
    transforms: tuple[Transform, ...]
    random: tuple[bool, ...]

    def __call__(self, picked: Picked, rng: np.random.Generator) -> Batch:
        batch = self._stacked(picked, rng)
        return batch | {INDEX: np.where(picked.mask > 0, picked.rows, -1), MASK: picked.mask}

    def _stacked(self, picked: Picked, rng: np.random.Generator) -> Batch:
        if not self.transforms:
            return read_batch(self.source, picked.rows)
        elements = read_elements(self.source, picked.rows)
        generators: list[Any] = [None] * len(elements)
        if any(self.random):
            keys = rng.integers(0, 2**63, size=picked.whole)[picked.first :]
            generators = [np.random.Generator(np.random.Philox(key=int(key))) for key in keys]
        return stack([self._transformed(*pair) for pair in zip(elements, generators, strict=False)])

    def _transformed(self, element: Element, rng: np.random.Generator) -> Element:
        for transform, random in zip(self.transforms, self.random, strict=True):
            element = transform(element, rng) if random else transform(element)
        return element


@dataclass(frozen=True)
class Finish:
    """Give a batch its final types: image float32, label int32, index int64; drop the mask.

    Raises:
        ValueError: a key is missing, empty or of another length, or a label is out of range.
    """

    num_classes: int | None
    rows: int
    keep_mask: bool

    def __call__(self, batch: Batch) -> Batch:
        for key, array in batch.items():
            self._check(key, np.shape(array))
        batch = to_float(batch) if "image" in batch else dict(batch)
        if "label" in batch:
            check_labels(batch["label"], self.num_classes)
            if np.issubdtype(np.asarray(batch["label"]).dtype, np.integer):
                batch["label"] = batch["label"].astype(np.int32)
        if not self.keep_mask:
            del batch[MASK]
        return batch

    def _check(self, key: str, shape: tuple[int, ...]) -> None:
        if len(shape) < 1 or shape[0] != self.rows or 0 in shape:
            raise ValueError(
                f"Every array of a batch must have {self.rows} rows and no empty axis; {key!r} "
                f"has shape {shape}. Look at what the transforms return."
            )


def check_first(batch: Batch) -> None:
    """Look for NaN and infinity in a batch (done for the first one of an iterator).

    Raises:
        ValueError: names the key.
    """
    for key, array in batch.items():
        check_finite(key, array)


def assemble(
    source: Source,
    order: Order,
    element_transforms: Sequence[Transform],
    batch_transforms: Sequence[Transform],
    *,
    keep_mask: bool,
) -> grain.MapDataset:
    """The whole pipeline as a random-access Grain data set: its item i is batch number i.

    Without a seed (evaluation) every transform must be deterministic.

    Raises:
        ValueError: a random transform where there is no seed.
    """
    random = tuple(is_random(transform) for transform in element_transforms)
    random_batch = [is_random(transform) for transform in batch_transforms]
    if order.seed is None and (any(random) or any(random_batch)):
        raise ValueError(
            "Evaluation takes deterministic transforms only; got one that asks for a random "
            "generator. Leave learn.augment's transforms to train_iterator."
        )
    # sys.maxsize is what Grain itself uses for an endless data set.
    count = order.batches_per_epoch if order.seed is None else _ENDLESS
    batches = grain.MapDataset.range(count).map(order)
    read = Read(source, tuple(element_transforms), random)
    batches = batches.random_map(read, seed=_stage_seed(order.seed, 0))
    for stage, transform in enumerate(batch_transforms, start=1):
        if random_batch[stage - 1]:
            seed = _stage_seed(order.seed, stage, order.shard_index)
            batches = batches.random_map(transform, seed=seed)
        else:
            batches = batches.map(transform)
    rows = order.batch_size // order.shard_count
    return batches.map(Finish(getattr(source, "num_classes", None), rows, keep_mask))


_ENDLESS = 2**62


def _stage_seed(seed: int | None, stage: int, shard_index: int = 0) -> int:
    """A seed for one random stage: hashed, so that seeds 0 and 1 share no draws."""
    entropy = (seed or 0, stage, shard_index)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
