# SPDX-License-Identifier: Apache-2.0
"""From the name of a data set to its splits."""

import difflib
from os import PathLike, fspath
from typing import Any

from efficient_layers.data.digits import load_digits
from efficient_layers.data.splits import Splits
from efficient_layers.data.stand_in import load_stand_in
from efficient_layers.data.tfds import load_tfds

TFDS = "tfds:"


def load(
    name: str,
    *,
    data_dir: str | PathLike[str] | None = None,
    validation_fraction: float = 0.15,
    seed: int = 0,
    stand_in: bool = False,
    **options: Any,
) -> Splits:
    """Train, validation and test sources of a data set, and what is known about it.

    `name` is "digits" (bundled) or "tfds:NAME[:VERSION]", prepared in `data_dir` (None: where TFDS
    looks by itself). Validation is carved out of train by `seed`. `stand_in=True` gives random
    images of the same shapes instead. A TFDS data set takes more `options`: `train_split`,
    `validation_split`, `test_split` (names) and `cache` (keep decoded images in RAM).

    Raises:
        MissingDataError: the data set is not prepared; the message has the command.
        ValueError: an unknown name or split, or a fraction that leaves a split empty.
        TypeError: an option this data set does not have.
    """
    directory = None if data_dir is None else fspath(data_dir)
    if name != "digits" and not name.startswith(TFDS):
        raise ValueError(_unknown(name))
    if stand_in:
        return load_stand_in(name, data_dir=directory, seed=seed)
    if name == "digits":
        if options:
            raise TypeError(f"The digits have fixed splits and no options; got {sorted(options)}.")
        return load_digits(validation_fraction=validation_fraction, seed=seed)
    return load_tfds(
        name.removeprefix(TFDS),
        data_dir=directory,
        validation_fraction=validation_fraction,
        seed=seed,
        **options,
    )


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, ["digits"], n=1)
    guess = close[0] if close else f"{TFDS}{name}"
    return (
        f"Unknown data set {name!r}: expected 'digits' or '{TFDS}NAME' for any data set of "
        f"TensorFlow Datasets. Did you mean {guess!r}?"
    )
