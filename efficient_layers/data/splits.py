# SPDX-License-Identifier: Apache-2.0
"""What `load` gives: three sources and what is known about them."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from efficient_layers.data.source import Rows, Source, Subset


@dataclass(frozen=True)
class Info:
    """Facts about a data set, JSON-able through `to_json`.

    `image_shape` is (h, w, c), with None for a size that differs from image to image; (n, c) for
    signals; () for tokens. `sizes` maps "train", "validation" and "test" to their numbers of
    examples. `provenance` names the exact data (version, files, split rule) in a sentence, for a
    run's environment.json.

    Tokens have a `length` a row and a `vocabulary`, are `padded` with a "token_mask" or not, and
    have one label a row (`num_classes` > 0), or none, or `per_token` a "target" each position.
    """

    name: str
    num_classes: int
    image_shape: tuple[int | None, ...]
    class_names: tuple[str, ...]
    provenance: str
    sizes: dict[str, int] = field(default_factory=dict)
    length: int = 0
    vocabulary: int = 0
    padded: bool = False
    per_token: bool = False

    def sized(self, sizes: dict[str, int]) -> "Info":
        """The same facts with these sizes."""
        return replace(self, sizes=sizes)

    def to_json(self) -> dict[str, Any]:
        """The same facts as plain lists, numbers and strings."""
        facts = asdict(self)
        return facts | {
            "image_shape": list(self.image_shape),
            "class_names": list(self.class_names),
        }


@dataclass(frozen=True)
class Splits:
    """Sources to train on, to choose by, and to read once.

    `validation` is None when `validation_fraction` is 0.
    """

    train: Source
    validation: Source | None
    test: Source
    info: Info


def carve(examples: int, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows kept for training and rows carved out for validation, both ascending.

    The draw is NumPy's legacy generator, whose stream is frozen for good (NEP 19): the same seed
    gives the same split on every NumPy.

    Raises:
        ValueError: the fraction is outside [0, 1), or leaves one of the two without an example.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"validation_fraction must lie in [0, 1); got {fraction}.")
    held_out = round(fraction * examples)
    if held_out >= examples or (fraction > 0 and held_out == 0):
        raise ValueError(
            f"validation_fraction={fraction} of {examples} examples leaves {examples - held_out} "
            f"for training and {held_out} for validation; both need at least one."
        )
    order = np.random.RandomState(seed).permutation(examples)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def split_train(source: Source, fraction: float, seed: int) -> tuple[Source, Source | None]:
    """A training source and a validation source (None for fraction 0), disjoint, by seed."""
    train, validation = carve(len(source), fraction, seed)
    if not len(validation):
        return source, None
    return Subset(source, train), Subset(source, validation)


def sizes(train: Source, validation: Source | None, test: Source) -> dict[str, int]:
    """Number of examples of each split."""
    held_out = 0 if validation is None else len(validation)
    return {"train": len(train), "validation": held_out, "test": len(test)}
